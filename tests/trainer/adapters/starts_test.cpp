// LoRA's starts from the data (EVA) and from a quantised base (LoftQ); their numbers are held
// against PEFT in tests/parity/starts_test.cpp.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "tests/trainer/llama_shape.h"
#include "trainer/adapters/adapters.h"
#include "trainer/adapters/eva.h"
#include "trainer/models/model.h"

namespace temper::trainer {
namespace {

recipes::Peft lora(const std::string& init) {
  recipes::Recipe recipe;
  recipe.peft.method = "lora";
  recipe.peft.r = 2;
  recipe.peft.target_modules = "all-linear";
  recipe.peft.init_lora_weights = init;
  recipes::fill_in_peft(recipe);
  return recipe.peft;
}

std::unique_ptr<Model> drawn(const ModelOptions& options) {
  auto model = build_model(llama_of({}), options);
  draw_weights(*model, options, 3);
  const at::NoGradGuard off;
  for (Parameter& p : model->parameters()) p.value.mul_(p.value.dim() > 1 ? 10 : 1);
  return model;
}

// One row of 40 tokens, all supervised.
data::Batch batch(uint64_t seed) {
  data::Batch batch;
  batch.token_ids = at::randint(20, {1, 40}, at::detail::createCPUGenerator(seed), at::kLong);
  batch.labels = at::zeros({1, 40}, at::kLong);
  batch.positions = at::arange(40).unsqueeze(0);
  batch.document_ends = at::tensor({0, 40}, at::kInt);
  return batch;
}

std::string refusal(const recipes::Peft& peft, const NextBatch& next) {
  const ModelOptions options{.frozen = true};
  try {
    find_eva_start(peft, *drawn(options), next);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Eva, RanksGoToTheLargestSharesAndTheFirstOfAnInputHasTheMost) {
  const at::Tensor flat = at::tensor({0.2, 0.15, 0.1}), steep = at::tensor({0.9, 0.05, 0.01});
  // Layers 0 and 2 have the same input.
  EXPECT_EQ(share_out_ranks({{0, flat}, {1, steep}, {0, flat}}, 3), (std::vector<int64_t>{1, 1, 1}));
  EXPECT_EQ(share_out_ranks({{0, flat}, {1, steep}, {0, flat}}, 4), (std::vector<int64_t>{2, 1, 1}));
  EXPECT_EQ(share_out_ranks({{0, flat}, {1, steep}, {0, flat}}, 8), (std::vector<int64_t>{3, 2, 3}));
  EXPECT_EQ(share_out_ranks({{0, flat}, {1, steep}}, 1), (std::vector<int64_t>{0, 1}));
}

TEST(Eva, LeavesTheModelAsItWasAndStartsWithoutAnEffect) {
  const ModelOptions options{.frozen = true};
  const auto model = drawn(options);
  const at::NoGradGuard off;
  const at::Tensor before = model->hidden(batch(1));
  uint64_t seed = 0;
  const EvaStart start =
      find_eva_start(lora("eva"), *model, [&] { return batch(seed++ % 3); });
  EXPECT_TRUE(at::equal(model->hidden(batch(1)), before));
  int64_t ranks = 0;
  for (const auto& [module, a] : start.a) {
    ranks += a.size(0);
    EXPECT_LT((at::mm(a, a.t()) - at::eye(a.size(0))).abs().max().item<double>(), 1e-5) << module;
  }
  EXPECT_EQ(ranks, 2 * 14);
  Adapters adapters(start.peft, *model, options);
  adapters.initialize(1);
  adapters.start_from(start.a);
  EXPECT_LT((model->hidden(batch(1)) - before).abs().max().item<double>(), 1e-6);
}

TEST(Eva, RefusesWhatCannotSettle) {
  recipes::Peft peft = lora("eva");
  peft.eva_rho = 9.0;
  EXPECT_EQ(refusal(peft, [] { return batch(1); }),
            "peft.eva_config.rho: rho x r = 18 directions are more than the 16 inputs of "
            "model.layers.0.self_attn.q_proj");
  // Too few tokens for four directions.
  const NextBatch short_rows = [] {
    data::Batch few = batch(1);
    few.labels.fill_(-100).narrow(1, 0, 3).fill_(0);
    return few;
  };
  EXPECT_NE(refusal(lora("eva"), short_rows).find("still move"), std::string::npos);
}

TEST(Loftq, MergesAndComesBackAsTheBaseThatItTrainsOn) {
  for (const int64_t iterations : {int64_t{1}, int64_t{3}}) {
    const ModelOptions options{.frozen = true};
    const auto model = drawn(options), original = drawn(options);
    const at::NoGradGuard off;
    recipes::Peft peft = lora("loftq");
    peft.loftq_iter = iterations;
    Adapters adapters(peft, *model, options);
    adapters.initialize(1);
    const auto base = [&](const std::string& name) {
      for (const Parameter& p : original->parameters())
        if (p.name == name) return p.value;
      throw std::out_of_range(name);
    };
    // Merged: the quantised base and its adapter.
    const at::Tensor expected = model->hidden(batch(1));
    const auto merged = drawn(options);
    for (const auto& [name, weight] : merged_weights(*model, adapters, base, at::kFloat)) {
      for (Parameter& p : merged->parameters())
        if (p.name == name) p.value.copy_(weight);
    }
    EXPECT_LT((merged->hidden(batch(1)) - expected).abs().max().item<double>(), 1e-4);
    // Made again from the original weights: the same bits.
    for (Parameter& p : model->parameters())
      if (!p.trainable() && p.name.ends_with("proj.weight")) p.value.zero_();
    adapters.change_base_again(base);
    EXPECT_TRUE(at::equal(model->hidden(batch(1)), expected));
    // And exported as it is, for PEFT quantises the base again.
    EXPECT_EQ(adapters.plain().first.init_lora_weights, recipes::BoolOrWord("loftq"));
  }
}

TEST(Loftq, IsRefusedWhereTheStoredWeightsWouldBeRoundedBefore) {
  ModelConfig config = llama_of({});
  config.stored_dtype = "float32";
  EXPECT_THROW(check_base_of_start(lora("loftq"), config, at::kBFloat16), UserError);
  EXPECT_NO_THROW(check_base_of_start(lora("loftq"), config, at::kFloat));
  EXPECT_NO_THROW(check_base_of_start(lora("pissa"), config, at::kBFloat16));
  config.stored_dtype = "bfloat16";
  EXPECT_NO_THROW(check_base_of_start(lora("loftq"), config, at::kBFloat16));
}

}  // namespace
}  // namespace temper::trainer
