#include "trainer/objectives/online_dpo.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>

#include "data/loader/batch.h"
#include "trainer/models/model.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/registry.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/ops/device.h"
#include "trainer/ops/token_log_probs.h"

namespace temper::trainer {
namespace {

}  // namespace

LossTerms online_dpo_loss(const SampledPairs& pairs, const DpoOptions& options) {
  const DpoInputs inputs{.policy = pair_of(pairs.log_probs),
                         .reference = pair_of(pairs.reference_log_probs),
                         // ipo is of sums over completions here, of means in DPOTrainer.
                         .lengths = pair_of(at::ones_like(pairs.log_probs)),
                         .chosen_nll = {}};
  const at::Tensor log_probs = pairs.log_probs.detach();
  const at::Tensor divergence = log_probs - pairs.reference_log_probs;
  const at::Tensor rewards = options.beta * divergence;
  std::vector<LateMetric> metrics = pair_metrics({.chosen_rewards = chosen_of(rewards),
                                                  .rejected_rewards = rejected_of(rewards),
                                                  .chosen_logps = chosen_of(log_probs),
                                                  .rejected_logps = rejected_of(log_probs)});
  const auto completions = static_cast<double>(log_probs.numel());
  const auto add = [&](const char* name, const at::Tensor& values) {
    metrics.push_back({name, total_of(values), completions});
  };
  add("objective/kl", divergence);
  add("objective/entropy", -log_probs);
  add("objective/non_score_reward", -rewards);
  add("objective/rlhf_reward", pairs.rewards - rewards);
  metrics.push_back({"beta", options.beta * completions, completions});
  return {.sum = dpo_loss(inputs, options).sum(),
          .count = completions / 2,
          .metrics = std::move(metrics)};
}

namespace {

class OnlineDpo : public RolloutObjective {
 public:
  explicit OnlineDpo(const recipes::Objective& objective)
      : missing_eos_penalty_(objective.missing_eos_penalty.value_or(0)) {
    options_.loss_types = {name_of_one(objective.loss_type, "sigmoid")};
    options_.beta = objective.beta.value_or(0.1);
    check(options_);
  }

  std::optional<data::RowLayout> row_layout() const override { return data::RowLayout{}; }
  bool needs_reference() const override { return true; }

  // Puts the chosen completion of each pair first. A pair with a completion that has no score says
  // nothing.
  std::vector<MetricSum> judge(SampledGroups& groups, const Scores& /*scores*/) const override {
    MetricSum scores{"objective/scores"}, margins{"objective/scores_margin"};
    MetricSum ended{"val/contain_eos_token"};
    for (SampledGroup& group : groups) {
      SampledCompletion& first = group.completions.at(0);
      SampledCompletion& second = group.completions.at(1);
      for (SampledCompletion* completion : {&first, &second}) {
        if (completion->truncated) completion->reward -= static_cast<float>(missing_eos_penalty_);
        ended.numerator += completion->truncated ? 0 : 1;
        ended.denominator += 1;
      }
      group.left_out = group.left_out || std::isnan(first.reward) || std::isnan(second.reward);
      if (group.left_out) continue;
      if (first.reward < second.reward) std::swap(first, second);
      const double mean = (static_cast<double>(first.reward) + second.reward) / 2;
      first.advantage = static_cast<float>(first.reward - mean);
      second.advantage = static_cast<float>(second.reward - mean);
      scores.numerator += mean;
      margins.numerator += static_cast<double>(first.reward) - second.reward;
      scores.denominator = margins.denominator += 1;
    }
    return {scores, margins, ended};
  }

  // The temperature is that of sampling alone.
  double temperature(double /*sampling*/) const override { return 1; }

  LossTerms loss(Model& model, const data::Batch& batch) override {
    const data::Targets& targets = batch.targets;
    const TokenLogProbs tokens =
        token_log_probs(model.hidden(batch), model.head(), targets.positions, targets.labels);
    const auto there = [&](const at::Tensor& of_batch) {
      return sent_to(tokens.log_probs.device(), of_batch);
    };
    return online_dpo_loss(
        {.log_probs = sum_per_completion(tokens.log_probs, targets.ends),
         .reference_log_probs = sum_per_completion(there(batch.reference_log_probs), targets.ends),
         .rewards = there(batch.rollout.rewards)},
        options_);
  }

  std::vector<std::string> metric_names() const override {
    return {"rewards/chosen",       "rewards/rejected",  "rewards/accuracies",
            "rewards/margins",      "logps/chosen",      "logps/rejected",
            "objective/kl",         "objective/entropy", "objective/non_score_reward",
            "objective/rlhf_reward", "beta"};
  }

  double count(const data::Batch& batch) const override {
    return static_cast<double>(batch.rollout.rewards.numel()) / 2;
  }

 private:
  DpoOptions options_;
  double missing_eos_penalty_;
};

}  // namespace

std::unique_ptr<Objective> build_online_dpo(const recipes::Objective& objective) {
  return std::make_unique<OnlineDpo>(objective);
}

}  // namespace temper::trainer
