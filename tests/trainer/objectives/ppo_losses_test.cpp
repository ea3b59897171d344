#include "trainer/objectives/ppo_losses.h"

#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace temper::trainer {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

at::Tensor floats(const std::vector<float>& values) { return at::tensor(values, at::kFloat); }
at::Tensor ends(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

void expect_near(const at::Tensor& found, const std::vector<float>& expected) {
  const at::Tensor wanted = floats(expected);
  ASSERT_EQ(found.sizes(), wanted.sizes());
  EXPECT_LE((found - wanted).abs().max().item<double>(), 1e-6) << found;
}

// Two completions of two and three tokens, without a reference.
ScoredTokens two_completions(const std::vector<float>& scores) {
  return {.log_probs = floats({-1, -2, -1, -1, -2}),
          .reference_log_probs = {},
          .values = floats({0.5, 1, 0, -1, 2}),
          .ends = ends({0, 2, 5}),
          .scores = floats(scores)};
}

TEST(GeneralizedAdvantages, WithoutLambdaAreTheErrorsOfEachStep) {
  const at::Tensor found = generalized_advantages(floats({1, 2, 3}), floats({10, 20, 30}),
                                                  ends({0, 3}), /*gamma=*/0.5, /*lam=*/0);
  expect_near(found, {1 + 10 - 10, 2 + 15 - 20, 3 - 30});
}

TEST(GeneralizedAdvantages, WithLambdaOneAreTheRewardsToComeMinusTheValue) {
  const at::Tensor found =
      generalized_advantages(floats({1, 2, 3, 4}), floats({10, 20, 30, 40}), ends({0, 3, 4}), 1, 1);
  expect_near(found, {6 - 10, 5 - 20, 3 - 30, 4 - 40});
}

TEST(Whitened, HasMeanZeroAndVarianceOneOrKeepsItsMean) {
  expect_near(whitened(floats({1, 3, 5}), Mean::kRemoved), {-1, 0, 1});
  expect_near(whitened(floats({1, 3, 5}), Mean::kKept), {2, 3, 4});
}

TEST(Whitened, OfFewerThanTwoNumbersIsZeroOrNothing) {
  expect_near(whitened(floats({7}), Mean::kRemoved), {0});
  EXPECT_EQ(whitened(floats({}), Mean::kRemoved).numel(), 0);
}

TEST(PpoTargets, AddTheScoreAtTheLastTokenAndTheKlPenaltyAtEach) {
  ScoredTokens tokens = two_completions({1, -1});
  tokens.values.zero_();
  tokens.reference_log_probs = tokens.log_probs - floats({1, 0, 0, 2, 0});
  const PpoTargets targets = ppo_targets(tokens, {.gamma = 1, .lam = 0, .kl_coef = 0.5});
  // Without values and lambda an advantage, and so the return, is the token's own reward.
  expect_near(targets.returns, {-0.5, 1, 0, -1, -1});
}

TEST(PpoTargets, ACompletionWithoutAScoreTeachesNothing) {
  const PpoOptions options{.kl_coef = 0, .whiten_rewards = true};
  const PpoTargets both = ppo_targets(two_completions({1, kNone}), options);
  expect_near(both.advantages.slice(0, 2, 5), {0, 0, 0});
  expect_near(both.returns.slice(0, 2, 5), {0, -1, 2});
  // The other one learns as if it were alone.
  ScoredTokens first = two_completions({1, kNone});
  for (at::Tensor* tensor : {&first.log_probs, &first.values}) *tensor = tensor->slice(0, 0, 2);
  first.ends = ends({0, 2});
  first.scores = floats({1});
  const PpoTargets alone = ppo_targets(first, options);
  EXPECT_TRUE(at::equal(both.advantages.slice(0, 0, 2), alone.advantages));
  EXPECT_TRUE(at::equal(both.returns.slice(0, 0, 2), alone.returns));
}

TEST(PpoTargets, AreFiniteWhereNothingHasAScore) {
  const PpoTargets targets = ppo_targets(two_completions({kNone, kNone}), {.kl_coef = 0});
  expect_near(targets.advantages, {0, 0, 0, 0, 0});
  expect_near(targets.returns, {0.5, 1, 0, -1, 2});
}

// One token whose value is right.
PpoTokens one_token(float log_ratio, float advantage) {
  return {.log_probs = floats({-1 + log_ratio}).requires_grad_(),
          .values = floats({0}).requires_grad_(),
          .entropy = floats({0}),
          .old_log_probs = floats({-1}),
          .old_values = floats({0}),
          .advantages = floats({advantage}),
          .returns = floats({0})};
}

float policy_gradient(const PpoTokens& tokens) {
  ppo_loss(tokens, {}).sum.backward();
  return tokens.log_probs.grad().item<float>();
}

TEST(PpoLoss, IsThatOfAnUnchangedPolicyMinusTheAdvantage) {
  EXPECT_FLOAT_EQ(ppo_loss(one_token(0, 2), {}).sum.item<float>(), -2);
  EXPECT_FLOAT_EQ(policy_gradient(one_token(0, 2)), -2);
}

TEST(PpoLoss, StopsPushingARatioThatHasLeftTheClipRange) {
  EXPECT_EQ(policy_gradient(one_token(0.3f, 1)), 0);    // good, and likely enough already
  EXPECT_LT(policy_gradient(one_token(-0.3f, 1)), 0);   // good, and less likely than before
  EXPECT_EQ(policy_gradient(one_token(-0.3f, -1)), 0);  // bad, and unlikely enough already
  EXPECT_GT(policy_gradient(one_token(0.3f, -1)), 0);   // bad, and more likely than before
}

TEST(PpoLoss, StopsPushingAValueThatHasMovedFarTowardsItsReturn) {
  const auto value_gradient = [](float value, float target) {
    PpoTokens tokens = one_token(0, 0);
    tokens.values = floats({value}).requires_grad_();
    tokens.returns = floats({target});
    ppo_loss(tokens, {.vf_coef = 1}).sum.backward();
    return tokens.values.grad().item<float>();
  };
  EXPECT_FLOAT_EQ(value_gradient(0.1f, 1), -0.9f);
  EXPECT_EQ(value_gradient(0.3f, 1), 0);
  EXPECT_FLOAT_EQ(value_gradient(-0.3f, 1), -1.3f);  // away from it: pushed back
}

}  // namespace
}  // namespace temper::trainer
