// Online DPO's choice, loss, gradient and metrics against TRL's own training step: goldens of
// make_online_dpo.py. Both sides compute in float32; sums are ours in float64, theirs in float32.
#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/parity/golden.h"
#include "tests/trainer/objectives/known_metrics.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/online_dpo.h"
#include "trainer/objectives/registry.h"
#include "trainer/objectives/rollout_objective.h"

namespace temper::trainer {
namespace {

// TRL's completions are the first ones of all prompts, then the second ones. Here a completion's
// number is its only token, so that its place can be told after judge() has put pairs in order.
SampledGroups groups_of(const data::Json& inputs) {
  const auto rewards = inputs.at("rewards").get<std::vector<float>>();
  const size_t prompts = rewards.size() / 2;
  SampledGroups groups(prompts);
  for (size_t c = 0; c < rewards.size(); ++c) {
    groups[c % prompts].completions.push_back({.ids = {static_cast<int32_t>(c)},
                                               .truncated = inputs.at("truncated").at(c),
                                               .scores = {rewards[c]},
                                               .reward = rewards[c]});
  }
  return groups;
}

TEST(OnlineDpoParity, StepEqualsTrl) {
  const data::Json file = data::read_json(golden_files("online_dpo") / "steps.json");
  ASSERT_GE(file.at("steps").size(), 3u);
  for (const data::Json& step : file.at("steps")) {
    const data::Json& setting = step.at("setting");
    SCOPED_TRACE(setting.dump());
    recipes::Objective recipe;
    recipe.kind = "online_dpo";
    recipe.beta = setting.at("beta").get<double>();
    recipe.loss_type = setting.at("loss_type").get<std::string>();
    const data::Json& penalty = setting.at("missing_eos_penalty");
    if (!penalty.is_null()) recipe.missing_eos_penalty = penalty.get<double>();
    const auto built = build_objective(recipe);
    const auto& objective = dynamic_cast<const RolloutObjective&>(*built);

    SampledGroups groups = groups_of(file.at("inputs"));
    std::vector<MetricSum> metrics = objective.judge(groups, {});
    std::vector<float> policy, reference, rewards;
    std::vector<int64_t> ends = {0};
    std::vector<size_t> order;
    for (const SampledGroup& group : groups) {
      for (const SampledCompletion& completion : group.completions) {
        order.push_back(static_cast<size_t>(completion.ids.at(0)));
        for (const float x : file.at("inputs").at("log_probs").at(order.back())) policy.push_back(x);
        for (const float x : file.at("inputs").at("reference").at(order.back())) {
          reference.push_back(x);
        }
        ends.push_back(static_cast<int64_t>(policy.size()));
        rewards.push_back(completion.reward);
      }
    }
    const at::Tensor log_probs = at::tensor(policy).set_requires_grad(true);
    const at::Tensor bounds = at::tensor(ends);
    const LossTerms terms = online_dpo_loss(
        {.log_probs = sum_per_completion(log_probs, bounds),
         .reference_log_probs = sum_per_completion(at::tensor(reference), bounds),
         .rewards = at::tensor(rewards)},
        {.loss_types = {*std::get_if<std::string>(&*recipe.loss_type)}, .beta = *recipe.beta});
    const double loss = step.at("loss");
    EXPECT_NEAR(terms.sum.item<double>() / terms.count, loss, 1e-5 * std::abs(loss));

    (terms.sum / terms.count).backward();
    size_t at = 0;
    for (const size_t completion : order) {
      for (const float expected : step.at("gradient").at(completion)) {
        EXPECT_NEAR(log_probs.grad().const_data_ptr<float>()[at++], expected, 1e-6);
      }
    }
    for (MetricSum& metric : known_metrics(terms)) metrics.push_back(std::move(metric));
    for (const auto& [name, value] : step.at("metrics").items()) {
      const auto found = std::find_if(metrics.begin(), metrics.end(),
                                      [&](const MetricSum& metric) { return metric.name == name; });
      ASSERT_NE(found, metrics.end()) << name;
      EXPECT_NEAR(found->numerator / found->denominator, value.get<double>(), 1e-5) << name;
    }
  }
}

TEST(OnlineDpo, PairWithoutAScoreIsLeftOut) {
  recipes::Objective recipe;
  recipe.kind = "online_dpo";
  const auto built = build_objective(recipe);
  const float none = std::numeric_limits<float>::quiet_NaN();
  SampledGroups groups(2);
  groups[0].completions = {{.reward = 1}, {.reward = none}};
  groups[1].completions = {{.reward = 1}, {.reward = 2}};
  dynamic_cast<const RolloutObjective&>(*built).judge(groups, {});
  EXPECT_TRUE(groups[0].left_out);
  EXPECT_FALSE(groups[1].left_out);
  EXPECT_EQ(groups[1].completions[0].reward, 2);
  EXPECT_EQ(groups[1].completions[0].advantage, 0.5F);
}

}  // namespace
}  // namespace temper::trainer
