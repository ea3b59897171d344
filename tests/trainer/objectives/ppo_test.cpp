// The objective with a model: what the value head is part of and what it is not, and what judge()
// leaves to loss().
#include <gtest/gtest.h>

#include "recipes/peft_methods.h"
#include "tests/trainer/objectives/small_model.h"
#include "trainer/adapters/adapters.h"
#include "trainer/models/value_head.h"
#include "trainer/objectives/ppo_losses.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/rollouts/generation_batch.h"

namespace temper::trainer {
namespace {

std::unique_ptr<RolloutObjective> ppo(const recipes::Objective& objective = objective_of("ppo")) {
  return std::unique_ptr<RolloutObjective>(
      dynamic_cast<RolloutObjective*>(build_objective(objective).release()));
}

std::unique_ptr<Model> with_value_head(int64_t seed, const ModelOptions& options = {}) {
  auto model = small_model(1, small_config(), options);
  add_value_head(*model, options);
  draw_value_head(*model, seed);
  return model;
}

TEST(ValueHead, IsDrawnFromTheSeedInFloat32WhateverTheModelComputesIn) {
  const ModelOptions options{.compute = at::kBFloat16, .weights = at::kBFloat16};
  const auto model = with_value_head(7, options), same = with_value_head(7, options),
             other = with_value_head(8, options);
  const ValueHead head = value_head(*model);
  EXPECT_EQ(head.weight.scalar_type(), at::kFloat);
  EXPECT_EQ(head.weight.sizes(), (at::IntArrayRef{1, 8}));
  EXPECT_TRUE(head.weight.equal(value_head(*same).weight));
  EXPECT_FALSE(head.weight.equal(value_head(*other).weight));
  EXPECT_EQ(head.bias.item<float>(), 0);
  std::vector<std::string> last;
  for (size_t i = model->parameters().size() - 2; i < model->parameters().size(); ++i) {
    const Parameter& parameter = model->parameters()[i];
    last.push_back(parameter.name);
    EXPECT_TRUE(parameter.trainable());
    EXPECT_TRUE(parameter.master.is_same(parameter.value));
  }
  EXPECT_EQ(last, (std::vector<std::string>{"v_head.summary.weight", "v_head.summary.bias"}));
}

TEST(ValueHead, IsNoPartOfAdaptersNorOfWhatTheyAreMergedInto) {
  recipes::Recipe recipe;
  recipe.peft.method = "lora";
  recipe.peft.r = 2;
  recipe.peft.bias = "all";
  recipes::fill_in_peft(recipe);
  const ModelOptions options{.frozen = true};
  const auto model = small_model(1, small_config(), options);
  Adapters adapters(recipe.peft, *model, options);
  adapters.initialize(3);
  add_value_head(*model, options);
  draw_value_head(*model, 3);
  EXPECT_TRUE(value_head(*model).weight.requires_grad());
  for (const auto& [key, tensor] : adapters.tensors()) EXPECT_EQ(key.find("v_head"), key.npos);
  const auto base = [&](const std::string& name) {
    for (const Parameter& parameter : model->parameters()) {
      if (parameter.name == name) return parameter.value.detach();
    }
    return at::Tensor();
  };
  for (const auto& [name, tensor] : merged_weights(*model, adapters, base, at::kFloat)) {
    EXPECT_EQ(name.find("v_head"), name.npos);
  }
}

// Two completions of the small model's tokens.
SampledGroups sampled(float first_reward, float second_reward) {
  const auto group = [](int32_t place, std::vector<int32_t> ids, float reward) {
    const std::vector<float> zeros(ids.size(), 0);
    SampledCompletion completion;
    completion.ids = std::move(ids);
    completion.sampling_log_probs = completion.old_log_probs = completion.reference_log_probs =
        completion.values = zeros;
    completion.reward = reward;
    return SampledGroup{.place = place, .prompt = {1, 5}, .completions = {completion}};
  };
  return {group(0, {7, 8, 2}, first_reward), group(1, {9, 2}, second_reward)};
}

double metric_of(const std::vector<MetricSum>& metrics, const std::string& name) {
  for (const MetricSum& metric : metrics) {
    if (metric.name == name) return metric.numerator / metric.denominator;
  }
  ADD_FAILURE() << "no " << name;
  return 0;
}

TEST(Ppo, JudgesEachTokenOverAllCompletions) {
  SampledGroups groups = sampled(1, -1);
  const auto metrics = ppo()->judge(groups, {});
  double sum = 0;
  for (const SampledGroup& group : groups) {
    const SampledCompletion& completion = group.completions.front();
    ASSERT_EQ(completion.token_advantages.size(), completion.ids.size());
    EXPECT_EQ(completion.returns.back(), completion.reward);
    for (const float advantage : completion.token_advantages) sum += advantage;
  }
  EXPECT_NEAR(sum, 0, 1e-6);
  EXPECT_EQ(metric_of(metrics, "objective/scores"), 0);
  EXPECT_EQ(metric_of(metrics, "objective/kl"), 0);
  EXPECT_EQ(metric_of(metrics, "val/num_eos_tokens"), 2);
}

TEST(Ppo, TakesThePenaltyOffTheScoreOfACompletionWithoutAnEnd) {
  recipes::Objective objective = objective_of("ppo");
  objective.missing_eos_penalty = 0.5;
  SampledGroups groups = sampled(1, 1);
  groups[1].completions.front().truncated = true;
  const auto metrics = ppo(objective)->judge(groups, {});
  EXPECT_EQ(groups[0].completions.front().returns.back(), 1);
  EXPECT_EQ(groups[1].completions.front().returns.back(), 0.5);
  EXPECT_EQ(metric_of(metrics, "objective/scores"), 0.75);
  EXPECT_EQ(metric_of(metrics, "val/num_eos_tokens"), 1);
}

TEST(Ppo, TrainsPolicyHeadAndTrunkHoweverTheBatchIsCut) {
  const auto model = with_value_head(7);
  const auto objective = ppo();
  SampledGroups groups = sampled(1, -1);
  objective->judge(groups, {});
  const auto gradients_of = [&](int64_t micro) {
    double count = 0;
    for (const data::Batch& batch : micro_batches(groups, 0, 0, 1, {.micro = micro})) {
      EXPECT_EQ(objective->count(batch), static_cast<double>(batch.targets.labels.numel()));
      const LossTerms terms = objective->loss(*model, batch);
      terms.sum.backward();
      count += terms.count;
    }
    EXPECT_EQ(count, 5);
    for (const Parameter& parameter : model->parameters()) {
      EXPECT_GT(parameter.value.grad().abs().max().item<float>(), 0) << parameter.name;
    }
    return take_gradients(*model);
  };
  // A product of fewer rows may add in another order.
  EXPECT_LT(apart(gradients_of(1), gradients_of(2)), 1e-5);
}

TEST(Ppo, WithoutAPolicyLossTheTrunkStillLearnsValues) {
  const auto model = with_value_head(7);
  SampledGroups groups = sampled(1, -1);
  const auto objective = ppo();
  objective->judge(groups, {});
  for (SampledGroup& group : groups) {
    for (float& advantage : group.completions.front().token_advantages) advantage = 0;
  }
  objective->loss(*model, micro_batches(groups, 0, 0, 1, {.micro = 2}).front()).sum.backward();
  EXPECT_GT(model->embedding().weight.grad().abs().max().item<float>(), 0);
}

}  // namespace
}  // namespace temper::trainer
