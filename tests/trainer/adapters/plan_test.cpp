// What temper plan says of adapters against what they are.
#include "trainer/memory_plan.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/peft_methods.h"
#include "tests/trainer/llama_shape.h"
#include "trainer/adapters/adapters.h"
#include "trainer/models/model.h"

namespace temper::trainer {
namespace {

struct Planned {
  explicit Planned(const std::string& method) {
    recipe.model.dtype = recipes::Dtype::kBf16;
    recipe.train.precision = recipes::Dtype::kBf16;
    recipe.peft.method = method;
    recipe.peft.target_modules = "all-linear";
  }
  MemoryPlan plan() {
    recipes::fill_in_peft(recipe);
    return plan_memory(recipe, llama_of({}), 1);
  }
  int64_t exported() {
    recipes::fill_in_peft(recipe);
    const ModelOptions options{.frozen = true};
    const auto model = build_model(llama_of({}), options);
    draw_weights(*model, options, 1);
    Adapters adapters(recipe.peft, *model, options);
    adapters.initialize(1);
    int64_t bytes = 0;
    const auto no_base = [](const std::string&) { return at::Tensor(); };
    for (const auto& [key, tensor] :
         saved_tensors(adapters, adapter_dtype(recipe.peft), no_base)) {
      bytes += static_cast<int64_t>(tensor.nbytes());
    }
    return bytes;
  }
  recipes::Recipe recipe;
};

TEST(AdapterPlan, AnExportIsInTheTypeOfTheAdapterWhateverTheModels) {
  for (const auto dtype : {recipes::Dtype::kFp32, recipes::Dtype::kBf16}) {
    Planned lora("lora");
    lora.recipe.peft.dtype = dtype;
    EXPECT_EQ(lora.plan().export_bytes, lora.exported());
  }
}

TEST(AdapterPlan, AStartThatIsTakenOutOfTheBaseIsExportedWithTwiceTheRankAndKept) {
  Planned plain("lora"), pissa("lora"), loftq("lora");
  for (Planned* one : {&plain, &pissa, &loftq}) one->recipe.peft.r = 2;
  pissa.recipe.peft.init_lora_weights = std::string("pissa");
  loftq.recipe.peft.init_lora_weights = std::string("loftq");
  EXPECT_EQ(pissa.plan().export_bytes, pissa.exported());
  EXPECT_EQ(loftq.plan().export_bytes, loftq.exported());
  EXPECT_EQ(pissa.plan().export_bytes, 2 * plain.plan().export_bytes);
  const int64_t start = plain.plan().trainable * 4;
  EXPECT_EQ(pissa.plan().weights - plain.plan().weights, start);
  EXPECT_EQ(loftq.plan().checkpoint_bytes - plain.plan().checkpoint_bytes, start);
}

TEST(AdapterPlan, AdaloraKeepsTwoNumbersMoreForEachWeight) {
  Planned adalora("adalora");
  adalora.recipe.peft.total_step = 10;
  adalora.recipe.peft.init_r = 4;
  adalora.recipe.peft.target_r = 2;
  const MemoryPlan plan = adalora.plan();
  EXPECT_EQ(plan.optimizer, plan.trainable * (8 + 8));
}

}  // namespace
}  // namespace temper::trainer
