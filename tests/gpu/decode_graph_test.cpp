// Sampling whose steps are recorded against sampling whose steps are not, on the emulated device.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "data/text/tokenizer.h"
#include "recipes/peft_methods.h"
#include "tests/gpu/emulator/recording.h"
#include "tests/trainer/llama_shape.h"
#include "trainer/adapters/adapters.h"
#include "trainer/generation/decode_graphs.h"
#include "trainer/generation/engine.h"
#include "trainer/ops/device.h"

extern "C" const temper::parallel::CudaPlugin* temper_cuda_plugin();
extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels();

namespace temper::trainer {
namespace {

using Samples = std::vector<std::vector<Sampled>>;
using Names = std::vector<std::string>;

const at::Device kDevice(at::kPrivateUse1, 0);
constexpr int64_t kLongest = 16;  // completion
constexpr double kTolerance = 1e-5;

// Small, since every thread of a kernel is emulated; weights that make some tokens much likelier.
constexpr LlamaShape kShape{.hidden = 16, .mlp = 16, .heads = 2, .kv_heads = 1};

ModelConfig plain() {
  ModelConfig config = llama_of(kShape);
  config.initializer_range = 0.4;
  return config;
}

ModelConfig with_windows() {
  ModelConfig config = plain();
  config.sliding_window = {0, 7};
  config.qk_norm = true;
  return config;
}

// Angles that change with the length of a sequence: the host makes them.
ModelConfig with_dynamic_rope() {
  ModelConfig config = plain();
  config.max_position_embeddings = 25;
  config.rope.type = "dynamic";
  config.rope.factor = 4;
  return config;
}

ModelConfig gpt2() {
  ModelConfig config = gpt2_of(kShape);
  config.initializer_range = 0.4;
  return config;
}

struct Case {
  std::string name;
  ModelConfig (*config)() = plain;
  Names targets{};  // of LoRA
  std::optional<QuantKind> quantize{};
  bool prefix = false;
  at::ScalarType dtype = at::kFloat;
};

class DecodeGraph : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    use_kernels(at::kPrivateUse1, temper_cuda_kernels());
    use_graphs(at::kPrivateUse1, temper_cuda_plugin()->record);
    at::set_num_threads(1);  // products are too small for more
  }
  void TearDown() override {
    use_graphs(at::kPrivateUse1, nullptr);
    at::set_num_threads(threads_);
  }

  void build(const Case& c) {
    const bool frozen = !c.targets.empty() || c.quantize.has_value();
    const ModelOptions options{.compute = c.dtype,
                               .weights = c.dtype,
                               .frozen = frozen,
                               .quantize = c.quantize,
                               .device = kDevice};
    model_ = build_model(c.config(), options);
    draw_weights(*model_, options, 7);
    if (!c.targets.empty()) {
      recipes::Recipe recipe;
      recipe.peft.method = "lora";
      recipes::fill_in_peft(recipe);
      recipe.peft.r = recipe.peft.lora_alpha = 4;
      recipe.peft.init_lora_weights = false;  // B is not zero
      recipe.peft.target_modules = c.targets;
      recipe.peft.trainable_token_indices = std::vector<int64_t>{3, 11};
      adapters_ = std::make_unique<Adapters>(recipe.peft, *model_, options);
      adapters_->initialize(5);
    }
    if (c.prefix) {
      const at::Tensor vectors = at::arange(5 * 64, at::kFloat).sin().view({5, 64}).to(kDevice);
      auto front = std::make_shared<VirtualTokens>();
      *front = {.count = 5,
                .prefix = true,
                .vectors = [=] { return vectors; },
                .context = std::make_shared<AdapterContext>()};
      model_->virtual_tokens() = front;
    }
  }

  // More samples than slots, of prompts that reach the next page and the one after it, and that end
  // when they like: every size from all slots down to one, with and without padding.
  Samples sampled() {
    std::vector<SampleRequest> requests;
    for (const int64_t length : {3, 14, 20}) {
      SampleRequest request{.prompt = {}, .samples = 3, .seed = static_cast<uint64_t>(length)};
      for (int64_t i = 0; i < length; ++i)
        request.prompt.push_back(static_cast<int32_t>((length + 7 * i) % 20));
      requests.push_back(request);
    }
    static const auto tokenizer = data::Tokenizer::load(
        std::filesystem::path(std::getenv("TEMPER_SOURCE_DIR")) / "configs/quickstart");
    return sample(*model_, tokenizer, requests,
                  {.temperature = 1.0, .max_new_tokens = kLongest, .eos_ids = {4}}, {.slots = 6});
  }

  const int threads_ = at::get_num_threads();
  std::unique_ptr<Model> model_;
  std::unique_ptr<Adapters> adapters_;
};

// Does the work instead of recording it: the same rows and padding without a graph.
struct Eager : DeviceGraph {
  explicit Eager(const std::function<void()>& of) : work(of) {}
  void replay() override { work(); }
  static std::unique_ptr<DeviceGraph> record(int, const std::function<void()>& work, DeviceGraph*) {
    return std::make_unique<Eager>(work);
  }
  std::function<void()> work;
};

TEST_P(DecodeGraph, GivesWhatStepsGiveThatAreNotRecorded) {
  build(GetParam());
  int64_t before = emulator::replays();
  const Samples found = sampled();
  EXPECT_GT(emulator::replays(), before + 5);
  before = emulator::replays();
  use_graphs(at::kPrivateUse1, &Eager::record);
  const Samples padded = sampled();
  ASSERT_EQ(setenv("TEMPER_CUDA_GRAPHS", "0", 1), 0);
  const Samples alone = sampled();
  unsetenv("TEMPER_CUDA_GRAPHS");
  EXPECT_EQ(emulator::replays(), before);
  int64_t longest = 0, shortest = 1000;
  for (size_t r = 0; r < found.size(); ++r) {
    for (size_t s = 0; s < found[r].size(); ++s) {
      const Sampled& ours = found[r][s];
      EXPECT_EQ(ours.ids, padded[r][s].ids) << r << " " << s;
      EXPECT_EQ(ours.log_probs, padded[r][s].log_probs) << r << " " << s;
      EXPECT_EQ(ours.drawn_log_probs, padded[r][s].drawn_log_probs) << r << " " << s;
      // A product may sum in another order where it has other rows beside it.
      ASSERT_EQ(ours.ids, alone[r][s].ids) << r << " " << s;
      for (size_t i = 0; i < ours.ids.size(); ++i)
        EXPECT_NEAR(ours.log_probs[i], alone[r][s].log_probs[i], kTolerance) << r << " " << s;
      longest = std::max(longest, std::ssize(ours.ids));
      shortest = std::min(shortest, std::ssize(ours.ids));
    }
  }
  EXPECT_EQ(longest, kLongest);
  EXPECT_LT(shortest, kLongest);
}

INSTANTIATE_TEST_SUITE_P(
    Models, DecodeGraph,
    testing::Values(Case{"LlamaWithWindows", with_windows}, Case{"Gpt2", gpt2},
                    Case{"DynamicRope", with_dynamic_rope},
                    Case{"Lora", plain, Names{"q_proj", "down_proj", "lm_head"}},
                    Case{"LoraOnNf4", plain, Names{"v_proj", "up_proj"}, QuantKind::kNf4},
                    Case{"PrefixInBf16", plain, {}, {}, true, at::kBFloat16}),
    [](const auto& each) { return each.param.name; });

TEST_F(DecodeGraph, AppliesNotWhereWeightsComeAndGoOrAdaptersWait) {
  build({"Llama", plain});
  EXPECT_TRUE(DecodeGraphs::apply_to(*model_));
  struct Hooks : BlockHooks {
    void begin_forward() override {}
    void before_forward(int64_t) override {}
    void after_forward(int64_t, bool) override {}
    void before_backward(int64_t) override {}
    void after_backward(int64_t) override {}
    void end_passes() override {}
    bool holds(const Parameter&) const override { return false; }
    void store(const Parameter&, const at::Tensor&) override {}
  } hooks;
  model_->block_hooks() = &hooks;
  EXPECT_FALSE(DecodeGraphs::apply_to(*model_));
  model_->block_hooks() = nullptr;
  model_->linears().front().projection->adapted.resize(3);
  EXPECT_FALSE(DecodeGraphs::apply_to(*model_));
}

}  // namespace
}  // namespace temper::trainer
