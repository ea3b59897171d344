// Training steps of a small Llama on a device against the same steps on the CPU: the losses of SFT,
// full and with LoRA, and what the optimizer makes of the weights.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "recipes/recipe.h"
#include "tests/gpu/device.h"
#include "tests/trainer/llama_shape.h"
#include "tests/trainer/ops/compare.h"
#include "trainer/models/model.h"
#include "trainer/ops/head_cross_entropy.h"
#include "trainer/optimizers/offloaded.h"
#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {
namespace {

data::Batch batch_of(int64_t vocabulary) {
  constexpr int64_t kRows = 2, kLength = 12;
  data::Batch batch;
  batch.token_ids = at::randint(vocabulary, {kRows, kLength}, at::kLong);
  batch.labels = at::randint(vocabulary, {kRows, kLength}, at::kLong);
  batch.labels[0].narrow(0, 0, 5).fill_(-100);
  batch.positions =
      at::cat({at::arange(5, at::kLong), at::arange(7, at::kLong), at::arange(kLength, at::kLong)})
          .view({kRows, kLength});
  batch.document_ends = at::tensor({0, 5, 12, 24}, at::kInt);
  batch.rows = kRows;
  batch.input_tokens = kRows * kLength;
  batch.supervised = kRows * kLength - 5;
  return batch;
}

struct Steps {
  std::vector<double> losses, norms;
  at::Tensor weight;  // of the first projection, after the last step
};

Steps train(const ModelConfig& config, ModelOptions options, at::Device device) {
  options.device = device;
  const auto model = build_model(config, options);
  draw_weights(*model, options, 7);
  recipes::Optimizer settings;
  settings.kind = "adamw";
  settings.lr = 1e-2;
  settings.weight_decay = 0.1;
  const auto optimizer = build_optimizer(settings, model->parameters());
  at::manual_seed(4);
  const data::Batch batch = batch_of(config.vocab_size);
  Steps steps;
  for (int step = 0; step < 3; ++step) {
    std::vector<at::Tensor> gradients;
    for (Parameter& parameter : model->parameters()) parameter.value.mutable_grad().reset();
    const HeadLoss loss =
        head_cross_entropy(model->hidden(batch), model->head(), batch.labels, TokenLoss::kNll);
    loss.sum.backward();
    for (const Parameter& parameter : model->parameters())
      gradients.push_back(parameter.value.grad());
    const auto tokens = static_cast<double>(batch.supervised);
    const double norm = global_norm(gradients) / tokens;
    steps.losses.push_back(loss.sum.item<double>() / tokens);
    steps.norms.push_back(norm);
    optimizer->step(1e-2, clip_factor(norm, 1.0) / tokens);
  }
  steps.weight = model->parameters()[2].master.detach().cpu().clone();
  return steps;
}

class DeviceStep : public testing::TestWithParam<at::ScalarType> {};

TEST_P(DeviceStep, LossesAndWeightsFollowTheCpus) {
  TEMPER_NEEDS_DEVICE();
  const double close = GetParam() == at::kFloat ? 1e-5 : GetParam() == at::kHalf ? 2.5e-3 : 2e-2;
  struct Way {
    bool norms;
    int checkpointing;
    bool gpt2 = false;
  };
  for (const Way& way : {Way{false, 0}, Way{true, 1}, Way{true, 2}, Way{false, 2, true}}) {
    const LlamaShape shape{.vocabulary = 40, .hidden = 64, .mlp = 96};
    ModelConfig config = way.gpt2 ? gpt2_of(shape) : llama_of(shape);
    config.qk_norm = way.norms;
    const ModelOptions options{.compute = GetParam(),
                               .activation_checkpointing = way.checkpointing};
    const Steps expected = train(config, options, at::kCPU);
    const OnDevice here;
    const Steps found = train(config, options, test_device());
    for (size_t i = 0; i < expected.losses.size(); ++i) {
      EXPECT_NEAR(found.losses[i], expected.losses[i], close * expected.losses[i]) << i;
      EXPECT_NEAR(found.norms[i], expected.norms[i], 5 * close * expected.norms[i]) << i;
    }
    EXPECT_LT(expected.losses.back(), expected.losses.front());
    // Adam turns the smallest difference of a gradient's sign into a step.
    EXPECT_LT(worst(found.weight, expected.weight), 50 * close);
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DeviceStep, testing::Values(at::kFloat, at::kBFloat16, at::kHalf));

// From the same gradients the same bits: masters, values and moments of a matrix and of a vector
// too short for 8 bits.
TEST(DeviceOptimizers, StepToTheCpusBits) {
  TEMPER_NEEDS_DEVICE();
  const auto states = [](const std::string& kind, double momentum, at::Device device) {
    at::manual_seed(2);
    std::vector<Parameter> parameters;
    for (const int64_t count : {5000, 100}) {
      Parameter p{.name = "w" + std::to_string(count), .value = {}, .master = {}};
      p.master = at::randn({count}).to(device);
      p.value = p.master.to(at::kBFloat16).requires_grad_(true);
      p.dtype = at::kBFloat16;
      parameters.push_back(p);
    }
    recipes::Optimizer settings;
    settings.kind = kind;
    settings.momentum = momentum;
    settings.weight_decay = 0.1;
    const auto optimizer = build_optimizer(settings, parameters);
    std::vector<at::Tensor> found;
    for (int step = 0; step < 3; ++step) {
      for (Parameter& p : parameters) {
        p.value.mutable_grad() = at::randn(p.master.sizes()).to(device);
      }
      optimizer->step(1e-2, 0.5);
    }
    for (const Parameter& p : parameters) {
      found.push_back(p.master.cpu());
      found.push_back(p.value.detach().to(at::kFloat).cpu());
    }
    for (const auto& [name, tensor] : optimizer->state()) found.push_back(tensor.cpu());
    return found;
  };
  for (const char* kind : {"adamw", "adamw_8bit"}) {
    const std::vector<at::Tensor> expected = states(kind, 0, at::kCPU);
    const OnDevice here;
    const std::vector<at::Tensor> found = states(kind, 0, test_device());
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_TRUE(found[i].equal(expected[i])) << kind << ", tensor " << i;
    }
  }
  // In LibTorch's operators, which round where the CPU's loop may not.
  for (const double momentum : {0.0, 0.9}) {
    const std::vector<at::Tensor> expected = states("sgd", momentum, at::kCPU);
    const OnDevice here;
    const std::vector<at::Tensor> found = states("sgd", momentum, test_device());
    for (size_t i = 0; i < expected.size(); ++i) {
      const bool rounded = i == 1 || i == 3;  // values, in bfloat16
      EXPECT_LT(worst(found[i], expected[i]), rounded ? 1e-2 : 1e-6) << "sgd, tensor " << i;
    }
  }
}

// Groups of one parameter and of two; one of these has no gradient in a step. Masters apart from
// values, on the host or not, and values that are masters.
TEST(DeviceOptimizers, OffloadedStepToTheBitsOfTheDevice) {
  TEMPER_NEEDS_DEVICE();
  const OnDevice here;
  struct Way {
    std::string kind;
    at::ScalarType compute;
    bool masters;
  };
  const auto states = [](const Way& way, bool offloaded) {
    at::manual_seed(2);
    std::vector<Parameter> parameters;
    for (const int64_t count : {9000, 100, 5000, 300, 4200}) {
      Parameter p{.name = "w" + std::to_string(count), .value = {}, .master = {}};
      p.master = at::randn({count}).to(test_device());
      p.value = way.compute == at::kFloat ? p.master : p.master.to(way.compute);
      p.value.requires_grad_(true);
      p.dtype = way.compute;
      parameters.push_back(p);
    }
    recipes::Optimizer settings;
    settings.kind = way.kind;
    settings.weight_decay = 0.1;
    const OffloadOptions offload = {.masters = way.masters, .group_elements = 5400};
    const auto optimizer = offloaded ? build_offloaded_optimizer(settings, parameters, offload)
                                     : build_optimizer(settings, parameters);
    for (int step = 0; step < 3; ++step) {
      for (Parameter& p : parameters) {
        const at::Tensor gradient = at::randn(p.master.sizes());
        const bool none = step == 1 && p.name == "w100";
        p.value.mutable_grad() = none ? at::Tensor() : gradient.to(test_device());
      }
      optimizer->step(1e-2, 0.5);
    }
    std::map<std::string, at::Tensor> found;
    for (const Parameter& p : parameters) {
      const bool moved = offloaded && way.masters && way.compute != at::kFloat;
      EXPECT_EQ(p.master.device(), moved ? at::kCPU : test_device()) << p.name;
      found["master/" + p.name] = p.master.detach().cpu();
      found["value/" + p.name] = p.value.detach().cpu();
    }
    for (const auto& [name, tensor] : optimizer->state()) {
      EXPECT_TRUE(tensor.device() == (offloaded ? at::kCPU : test_device())) << name;
      found[name] = tensor.cpu();
    }
    EXPECT_EQ(optimizer->updates, 3);
    return found;
  };
  const auto bf16 = at::kBFloat16;
  for (const Way& way : {Way{"adamw", bf16, true}, Way{"adamw", bf16, false},
                         Way{"adamw", at::kFloat, true}, Way{"adamw_8bit", bf16, true}}) {
    const auto expected = states(way, false), found = states(way, true);
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(found.at(name).equal(tensor)) << way.kind << " " << way.compute << " " << name;
    }
  }
}

}  // namespace
}  // namespace temper::trainer
