#include "trainer/optimizers/optimizer.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

recipes::Optimizer of_kind(const std::string& kind) {
  recipes::Optimizer optimizer;
  optimizer.kind = kind;
  return optimizer;
}

Parameter parameter(const std::string& name, const at::Tensor& master, const at::Tensor& gradient,
                    at::ScalarType compute = at::kFloat) {
  Parameter made;
  made.name = name;
  made.master = master.clone();
  made.value = compute == at::kFloat ? made.master : master.to(compute);
  made.value.requires_grad_();
  made.value.mutable_grad() = gradient;
  return made;
}

std::vector<float> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.detach().to(at::kFloat).contiguous().view(-1);
  return {flat.const_data_ptr<float>(), flat.const_data_ptr<float>() + flat.numel()};
}

TEST(AdamW, TheFirstStepMovesEveryWeightByTheRate) {
  // m / (1 - b1) = g and sqrt(v / (1 - b2)) = |g|: the step is lr * sign(g), whatever the size of
  // g.
  std::vector<Parameter> parameters = {
      parameter("w", at::tensor({1.0f, 1.0f, 1.0f}), at::tensor({0.5f, -20.0f, 0.0f}))};
  build_optimizer(of_kind("adamw"), parameters)->step(0.125, 1.0);
  const std::vector<float> after = values(parameters[0].value);
  EXPECT_NEAR(after[0], 0.875f, 1e-6);
  EXPECT_NEAR(after[1], 1.125f, 1e-6);
  EXPECT_EQ(after[2], 1.0f);
}

TEST(AdamW, DecayIsDecoupledAndSparesWhatIsMarked) {
  recipes::Optimizer options = of_kind("adamw");
  options.weight_decay = 0.5;
  std::vector<Parameter> parameters = {parameter("w", at::tensor({2.0f}), at::tensor({0.0f})),
                                       parameter("b", at::tensor({2.0f}), at::tensor({0.0f}))};
  parameters[1].decay = false;
  build_optimizer(options, parameters)->step(0.25, 1.0);
  EXPECT_EQ(values(parameters[0].value)[0], 2.0f * (1 - 0.25f * 0.5f));
  EXPECT_EQ(values(parameters[1].value)[0], 2.0f);
}

TEST(AdamW, StatesAreNamedAndSharedWithTheOptimizer) {
  std::vector<Parameter> parameters = {parameter("a.weight", at::ones({2}), at::ones({2}))};
  const auto optimizer = build_optimizer(of_kind("adamw"), parameters);
  auto state = optimizer->state();
  ASSERT_EQ(state.size(), 2u);
  EXPECT_EQ(state[0].first, "exp_avg/a.weight");
  EXPECT_EQ(state[1].first, "exp_avg_sq/a.weight");
  optimizer->step(0.1, 2.0);
  EXPECT_EQ(optimizer->updates, 1);
  EXPECT_NEAR(values(state[0].second)[0], 0.2f, 1e-7);    // (1 - 0.9) * 2
  EXPECT_NEAR(values(state[1].second)[0], 0.004f, 1e-8);  // (1 - 0.999) * 4
}

TEST(AdamW, RestoredStatesAndUpdatesGiveTheSameBits) {
  const at::Tensor start = at::randn({1000}, at::detail::createCPUGenerator(7));
  const at::Tensor gradient = at::randn({1000}, at::detail::createCPUGenerator(8));
  std::vector<Parameter> straight = {parameter("w", start, gradient)};
  const auto optimizer = build_optimizer(of_kind("adamw"), straight);
  for (int i = 0; i < 3; ++i) optimizer->step(1e-2, 1.0);
  std::vector<Parameter> resumed = {parameter("w", straight[0].master.detach(), gradient)};
  const auto other = build_optimizer(of_kind("adamw"), resumed);
  other->updates = optimizer->updates;
  for (size_t i = 0; i < 2; ++i) other->state()[i].second.copy_(optimizer->state()[i].second);
  optimizer->step(1e-2, 1.0);
  other->step(1e-2, 1.0);
  EXPECT_TRUE(at::equal(straight[0].value.detach(), resumed[0].value.detach()));
}

TEST(Sgd, MomentumAddsUpAndDecayIsPartOfTheGradient) {
  recipes::Optimizer options = of_kind("sgd");
  options.momentum = 0.5;
  options.weight_decay = 0.25;
  std::vector<Parameter> parameters = {parameter("w", at::tensor({4.0f}), at::tensor({1.0f}))};
  const auto optimizer = build_optimizer(options, parameters);
  optimizer->step(0.5, 1.0);  // b = 1 + 0.25 * 4 = 2, w = 4 - 1
  EXPECT_EQ(values(parameters[0].value)[0], 3.0f);
  optimizer->step(0.5, 1.0);  // b = 1 + 1 + 0.25 * 3 = 2.75
  EXPECT_EQ(values(parameters[0].value)[0], 3.0f - 0.5f * 2.75f);
}

TEST(Sgd, WithoutMomentumItHasNoState) {
  std::vector<Parameter> parameters = {parameter("w", at::tensor({4.0f}), at::tensor({8.0f}))};
  const auto optimizer = build_optimizer(of_kind("sgd"), parameters);
  EXPECT_TRUE(optimizer->state().empty());
  optimizer->step(0.25, 0.5);  // gradient_scale halves the gradient
  EXPECT_EQ(values(parameters[0].value)[0], 3.0f);
}

TEST(Optimizer, ValuesAreRoundedToTheWeightsTypeAndThenToTheComputeType) {
  for (const auto weights : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const auto compute : {at::kFloat, at::kBFloat16, at::kHalf}) {
      at::Tensor start = at::randn({9001}, at::detail::createCPUGenerator(1)) * 100;
      start[0] = 1e-7f;     // a subnormal of fp16
      start[1] = 65520.0f;  // rounds to infinity in fp16
      start[2] = std::numeric_limits<float>::quiet_NaN();
      Parameter made = parameter("w", start, at::zeros({9001}), compute);
      if (compute == at::kFloat) {  // a value of its own, as with weights = bf16
        made.value = start.clone().requires_grad_();
        made.value.mutable_grad() = at::zeros({9001});
      }
      made.dtype = weights;
      std::vector<Parameter> parameters = {made};
      build_optimizer(of_kind("sgd"), parameters)->step(0.0, 1.0);
      const at::Tensor expected = start.to(weights).to(at::kFloat).to(compute);
      EXPECT_TRUE(at::allclose(made.value.detach(), expected, 0, 0, /*equal_nan=*/true))
          << c10::toString(weights) << " " << c10::toString(compute);
    }
  }
}

TEST(Optimizer, FrozenParametersAndThoseWithoutAGradientStay) {
  Parameter frozen;
  frozen.name = "frozen";
  frozen.value = frozen.master = at::ones({3});
  std::vector<Parameter> parameters = {frozen, parameter("unused", at::ones({3}), at::Tensor()),
                                       parameter("used", at::ones({3}), at::ones({3}))};
  const auto optimizer = build_optimizer(of_kind("adamw"), parameters);
  EXPECT_EQ(optimizer->state().size(), 4u);
  optimizer->step(0.5, 1.0);
  EXPECT_EQ(values(parameters[0].value)[0], 1.0f);
  EXPECT_EQ(values(parameters[1].value)[0], 1.0f);
  EXPECT_NE(values(parameters[2].value)[0], 1.0f);
}

TEST(Optimizer, UnknownKindsNameTheNearest) {
  std::vector<Parameter> none;
  try {
    build_optimizer(of_kind("adam"), none);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean \"adamw\"?"), std::string::npos);
  }
}

class Threads : public testing::Test {
 protected:
  void TearDown() override { at::set_num_threads(before_); }
  const int before_ = at::get_num_threads();
};

TEST_F(Threads, ChangeNoBitOfAStepOrANorm) {
  std::vector<at::Tensor> results;
  std::vector<double> norms;
  for (const int threads : {1, 2, 3, 7}) {
    at::set_num_threads(threads);
    std::vector<Parameter> parameters;
    std::vector<at::Tensor> gradients;
    for (const int64_t size : {1, 100003, 17, 40000}) {
      gradients.push_back(at::randn({size}, at::detail::createCPUGenerator(size)));
      parameters.push_back(parameter("p" + std::to_string(size),
                                     at::randn({size}, at::detail::createCPUGenerator(size + 1)),
                                     gradients.back(), at::kBFloat16));
      parameters.back().dtype = at::kBFloat16;
    }
    norms.push_back(global_norm(gradients));
    const auto optimizer = build_optimizer(of_kind("adamw"), parameters);
    for (int i = 0; i < 3; ++i) optimizer->step(1e-2, clip_factor(norms.back(), 1.0));
    std::vector<at::Tensor> all;
    for (const Parameter& p : parameters) {
      all.push_back(p.master.detach());
      all.push_back(p.value.detach().to(at::kFloat));
    }
    results.push_back(at::cat(all));
  }
  for (size_t i = 1; i < results.size(); ++i) {
    EXPECT_TRUE(at::equal(results[0], results[i]));
    EXPECT_EQ(norms[0], norms[i]);
  }
}

TEST(GlobalNorm, IsTheNormOfTheConcatenation) {
  EXPECT_EQ(global_norm({at::tensor({3.0f}), at::empty({0}), at::tensor({0.0f, 4.0f})}), 5.0);
  EXPECT_EQ(global_norm({}), 0.0);
  const at::Tensor large = at::randn({3, 33333}, at::detail::createCPUGenerator(2));
  const double expected = large.to(at::kDouble).norm().item<double>();
  EXPECT_NEAR(global_norm({large}), expected, 1e-12 * expected);
}

TEST(GlobalNorm, LargeGradientsDoNotOverflow) {
  EXPECT_NEAR(global_norm({at::full({2}, 3e38f)}) / 3e38, std::sqrt(2.0), 1e-6);
}

TEST(GlobalNorm, NanAndInfinityComeThrough) {
  at::Tensor gradient = at::zeros({20000});
  gradient[12345] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(global_norm({at::ones({3}), gradient})));
  gradient[19999] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(global_norm({at::ones({3}), gradient})));
  EXPECT_TRUE(std::isnan(clip_factor(std::numeric_limits<double>::quiet_NaN(), 1.0)));
}

TEST(ClipFactor, ShrinksOnlyWhatIsAboveTheLimit) {
  EXPECT_EQ(clip_factor(0.5, 1.0), 1.0);
  EXPECT_NEAR(clip_factor(4.0, 1.0), 1.0 / (4.0 + 1e-6), 1e-15);
  EXPECT_EQ(clip_factor(1e9, 0.0), 1.0);
}

}  // namespace
}  // namespace temper::trainer
