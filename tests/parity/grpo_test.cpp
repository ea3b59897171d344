// GRPO's and RLOO's losses, gradients, advantages and metrics against TRL's own methods: goldens of
// make_grpo.py. Both sides compute in float32; sums are ours in float64, theirs in float32.
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/parity/golden.h"
#include "tests/trainer/objectives/known_metrics.h"
#include "trainer/objectives/advantages.h"
#include "trainer/objectives/grpo_losses.h"
#include "trainer/objectives/registry.h"
#include "trainer/objectives/rollout_objective.h"

namespace temper::trainer {
namespace {

data::Json golden(const std::string& name) { return data::read_json(golden_files("grpo") / name); }

at::Tensor floats(const data::Json& list) {
  return at::tensor(list.get<std::vector<float>>(), at::kFloat);
}

recipes::Objective objective_of(const data::Json& setting, const std::string& kind) {
  recipes::Objective objective;
  objective.kind = kind;
  for (const auto& [key, value] : setting.items()) {
    if (key == "loss_type")
      objective.loss_type = value.get<std::string>();
    else if (key == "importance_sampling_level")
      objective.importance_sampling_level = value;
    else if (key == "beta")
      objective.beta = value;
    else if (key == "use_bias_correction_kl")
      objective.use_bias_correction_kl = value;
    else if (key == "epsilon")
      objective.epsilon = value;
    else if (key == "epsilon_high")
      objective.epsilon_high = value;
    else if (key == "delta")
      objective.delta = value;
    else if (key == "sapo_temperature_pos")
      objective.sapo_temperature_pos = value;
    else if (key == "sapo_temperature_neg")
      objective.sapo_temperature_neg = value;
    else if (key == "vespo_k_pos")
      objective.vespo_k_pos = value;
    else if (key == "vespo_lambda_neg")
      objective.vespo_lambda_neg = value;
    else if (key == "top_entropy_quantile")
      objective.top_entropy_quantile = value;
    else if (key == "off_policy_mask_threshold")
      objective.off_policy_mask_threshold = value;
    else if (key == "entropy_coef")
      objective.entropy_coef = value;
    else if (key == "scale_rewards")
      objective.scale_rewards = value;
    else if (key == "multi_objective_aggregation")
      objective.multi_objective_aggregation = value;
    else if (key == "normalize_advantages")
      objective.normalize_advantages = value;
    else if (key == "reward_clip_range")
      objective.reward_clip_range = value.get<std::vector<double>>();
    else if (key != "weights")
      ADD_FAILURE() << "no such key: " << key;
  }
  return objective;
}

// Completions [first, last) of the golden's inputs.
PolicyTokens tokens_of(const data::Json& inputs, const data::Json& one, int64_t first,
                       int64_t last) {
  const auto lengths = inputs.at("lengths").get<std::vector<int64_t>>();
  std::vector<int64_t> ends = {0};
  int64_t begin = 0, total = 0;
  for (int64_t c = 0; c < static_cast<int64_t>(lengths.size()); ++c) {
    const int64_t length = lengths[static_cast<size_t>(c)];
    if (c < first) begin += length;
    if (c >= first && c < last) ends.push_back(ends.back() + length);
    total += length;
  }
  const auto part = [&](const char* name) {
    return floats(inputs.at(name)).narrow(0, begin, ends.back()).clone();
  };
  PolicyTokens tokens;
  tokens.log_probs = part("log_probs").requires_grad_();
  tokens.entropy = part("entropy").requires_grad_();
  if (!one.at("aligned").get<bool>()) tokens.old_log_probs = part("old");
  tokens.reference_log_probs = part("reference");
  tokens.ends = at::tensor(ends, at::kLong);
  tokens.advantages = floats(inputs.at("advantages")).narrow(0, first, last - first).clone();
  tokens.mean_tokens = static_cast<double>(total) / static_cast<double>(lengths.size());
  tokens.entropy_coef = one.at("setting").value("entropy_coef", 0.0);
  return tokens;
}

LossTerms loss_of(const data::Json& one, const data::Json& inputs, const PolicyTokens& tokens) {
  const recipes::Objective objective = objective_of(one.at("setting"), one.at("kind"));
  if (one.at("kind") == "rloo") {
    const double epsilon = objective.epsilon.value_or(0.2);
    return rloo_loss(tokens, epsilon, objective.epsilon_high.value_or(epsilon));
  }
  GrpoOptions options = grpo_options(objective);
  options.max_completion_length = inputs.at("max_completion_length");
  return grpo_loss(tokens, options);
}

void expect_near(const at::Tensor& found, const at::Tensor& expected, double tolerance) {
  EXPECT_LE((found - expected).abs().max().item<double>(), tolerance) << "found\n"
                                                                      << found << "\nexpected\n"
                                                                      << expected;
}

// TRL's metrics, by name; null: NaN there, no denominator here.
void expect_metrics(const std::vector<MetricSum>& metrics, const data::Json& expected,
                    double tolerance) {
  for (const auto& [name, value] : expected.items()) {
    if (name == "entropy_coef") continue;  // the rollouts' (adaptive control)
    const auto found =
        std::find_if(metrics.begin(), metrics.end(),
                     [&, &name = name](const MetricSum& m) { return m.name == name; });
    ASSERT_NE(found, metrics.end()) << name;
    if (value.is_null()) {
      EXPECT_EQ(found->denominator, 0) << name;
    } else {
      EXPECT_NEAR(found->numerator / found->denominator, value.get<double>(), tolerance) << name;
    }
  }
}

TEST(GrpoParity, LossGradientAndMetricsEqualTrl) {
  const data::Json file = golden("losses.json");
  ASSERT_GE(file.at("cases").size(), 45u);
  for (const data::Json& one : file.at("cases")) {
    SCOPED_TRACE(one.at("kind").get<std::string>() + " " + one.at("setting").dump() +
                 (one.at("aligned").get<bool>() ? " aligned" : ""));
    const PolicyTokens tokens = tokens_of(file.at("inputs"), one, 0, 6);
    const LossTerms terms = loss_of(one, file.at("inputs"), tokens);
    const double loss = one.at("loss");
    EXPECT_NEAR(terms.sum.item<double>() / terms.count, loss, 1e-5 * std::max(1.0, std::abs(loss)));
    (terms.sum / terms.count).backward();
    expect_near(tokens.log_probs.grad(), floats(one.at("log_prob_gradient")), 1e-6);
    if (!one.at("entropy_gradient").is_null() && tokens.entropy_coef != 0) {
      expect_near(tokens.entropy.grad(), floats(one.at("entropy_gradient")), 1e-6);
    }
    expect_metrics(known_metrics(terms), one.at("metrics"), 1e-5);
  }
}

TEST(GrpoParity, TwoMicroBatchesOfAStepAddUpToTrlsLoss) {
  const data::Json file = golden("losses.json");
  for (const data::Json& one : file.at("cases")) {
    SCOPED_TRACE(one.at("setting").dump());
    double sum = 0, count = 0;
    for (const int64_t first : {0, 3}) {
      const PolicyTokens tokens = tokens_of(file.at("inputs"), one, first, first + 3);
      const LossTerms terms = loss_of(one, file.at("inputs"), tokens);
      sum += terms.sum.item<double>();
      count += terms.count;
    }
    const double expected = one.at("split_loss");
    EXPECT_NEAR(sum / count, expected, 1e-5 * std::max(1.0, std::abs(expected)));
  }
}

// Completions of one token each, whose log-probabilities differ from the reference's by `kl`.
SampledGroups groups_of(const Scores& scores, const data::Json& kl) {
  SampledGroups groups;
  for (int64_t c = 0; c < scores.values.size(0); ++c) {
    if (c % scores.group == 0) groups.emplace_back();
    SampledCompletion& completion = groups.back().completions.emplace_back();
    if (kl.is_null()) continue;
    completion.old_log_probs = {kl.at(static_cast<size_t>(c)).get<float>()};
    completion.reference_log_probs = {0};
  }
  return groups;
}

TEST(GrpoParity, AdvantagesAndRewardMetricsEqualTrl) {
  const data::Json file = golden("advantages.json");
  ASSERT_GE(file.at("cases").size(), 40u);
  for (const data::Json& one : file.at("cases")) {
    SCOPED_TRACE(one.at("kind").get<std::string>() + " " + one.at("rewards").get<std::string>() +
                 " " + one.at("setting").dump());
    std::vector<float> rewards;
    for (const data::Json& row : file.at("rewards").at(one.at("rewards").get<std::string>())) {
      for (const data::Json& r : row) {
        rewards.push_back(r.is_null() ? std::numeric_limits<float>::quiet_NaN() : r.get<float>());
      }
    }
    const Scores scores{.values = at::tensor(rewards, at::kFloat).view({-1, 2}),
                        .group = 4,
                        .weights = one.at("setting").value("weights", std::vector<double>{1, 1})};
    recipes::Objective objective = objective_of(one.at("setting"), one.at("kind"));
    if (!objective.beta) objective.beta = 0.0;
    const auto built = build_objective(objective);
    const auto& rollouts = dynamic_cast<const RolloutObjective&>(*built);
    SampledGroups groups = groups_of(scores, one.at("kl"));
    std::vector<MetricSum> metrics = rollouts.judge(groups, scores);
    std::vector<float> advantages;
    for (const SampledGroup& group : groups) {
      for (const SampledCompletion& each : group.completions) advantages.push_back(each.advantage);
    }
    expect_near(at::tensor(advantages), floats(one.at("advantages")), 1e-6);
    for (MetricSum& metric : reward_metrics(scores, {"first", "second"})) {
      metrics.push_back(std::move(metric));
    }
    data::Json expected = one.at("metrics");
    expected.erase("kl");
    expect_metrics(metrics, expected, 1e-6);
  }
}

}  // namespace
}  // namespace temper::trainer
