// Group-relative policy optimisation and its relatives: the losses are in grpo_losses.h, what a
// reward becomes in advantages.h.
#include <ATen/ATen.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/models/model.h"
#include "trainer/objectives/grpo_losses.h"
#include "trainer/objectives/registry.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/ops/device.h"
#include "trainer/ops/token_log_probs.h"
#include "trainer/rollouts/metrics.h"

namespace temper::trainer {
namespace {

// What both losses have in common: batches of completions, and the model's tokens of them.
class Grouped : public RolloutObjective {
 public:
  std::optional<data::RowLayout> row_layout() const override { return data::RowLayout{}; }
  double count(const data::Batch& batch) const override {
    return static_cast<double>(batch.rollout.advantages.numel());
  }

 protected:
  static PolicyTokens policy_tokens(Model& model, const data::Batch& batch) {
    const data::Rollout& rollout = batch.rollout;
    const TokenLogProbs now = token_log_probs(
        model.hidden(batch), model.head(), batch.targets.positions, batch.targets.labels,
        {.temperature = rollout.temperature, .entropy_gradient = rollout.entropy_coef != 0});
    const auto there = [&](const at::Tensor& of_batch) {
      return of_batch.defined() ? sent_to(now.log_probs.device(), of_batch) : of_batch;
    };
    return {.log_probs = now.log_probs,
            .entropy = now.entropy,
            .old_log_probs = there(rollout.old_log_probs),
            .reference_log_probs = there(batch.reference_log_probs),
            .ends = batch.targets.ends,
            .advantages = there(rollout.advantages),
            .mean_tokens = rollout.mean_tokens,
            .entropy_coef = rollout.entropy_coef};
  }

  static void add_sampling(const PolicyTokens& tokens, const data::Batch& batch, LossTerms& terms) {
    const at::Tensor old =
        tokens.old_log_probs.defined() ? tokens.old_log_probs : tokens.log_probs.detach();
    const at::Tensor sampling = sent_to(old.device(), batch.rollout.sampling_log_probs);
    for (LateMetric& metric : sampling_metrics(old, sampling)) {
      terms.metrics.push_back(std::move(metric));
    }
  }

  // Of all completions, in order.
  static void write(const Advantages& advantages, SampledGroups& groups) {
    const float* values = advantages.values.const_data_ptr<float>();
    for (SampledGroup& group : groups) {
      for (SampledCompletion& completion : group.completions) completion.advantage = *values++;
    }
  }

  static std::vector<std::string> with_sampling(std::vector<std::string> names) {
    for (std::string& name : sampling_metric_names()) names.push_back(std::move(name));
    return names;
  }
};

class Grpo : public Grouped {
 public:
  explicit Grpo(const recipes::Objective& objective)
      : options_(grpo_options(objective)),
        aggregation_(objective.multi_objective_aggregation == "normalize_then_sum"
                         ? Aggregation::kNormalizeThenSum
                         : Aggregation::kSumThenNormalize),
        scale_(objective.scale_rewards == "batch"  ? Scale::kBatch
               : objective.scale_rewards == "none" ? Scale::kNone
                                                   : Scale::kGroup) {}

  bool needs_reference() const override { return options_.beta != 0; }
  std::vector<MetricSum> judge(SampledGroups& groups, const Scores& scores) const override {
    const Advantages advantages = grpo_advantages(scores, aggregation_, scale_);
    write(advantages, groups);
    return {{"frac_reward_zero_std", advantages.zero_std_share, 1}};
  }
  std::vector<std::string> metric_names() const override {
    return with_sampling(grpo_metric_names(options_));
  }
  LossTerms loss(Model& model, const data::Batch& batch) override {
    const PolicyTokens tokens = policy_tokens(model, batch);
    LossTerms terms = grpo_loss(tokens, options_);
    add_sampling(tokens, batch, terms);
    return terms;
  }

 private:
  GrpoOptions options_;
  Aggregation aggregation_;
  Scale scale_;
};

class Rloo : public Grouped {
 public:
  explicit Rloo(const recipes::Objective& objective)
      : beta_(objective.beta.value_or(0.05)),
        epsilon_(objective.epsilon.value_or(0.2)),
        epsilon_high_(objective.epsilon_high.value_or(epsilon_)),
        normalize_(objective.normalize_advantages.value_or(false)),
        clip_(objective.reward_clip_range) {}

  bool needs_reference() const override { return beta_ != 0; }
  // The divergence from the reference is part of the reward.
  bool needs_old_log_probs() const override { return beta_ != 0; }
  std::vector<MetricSum> judge(SampledGroups& groups, const Scores& scores) const override {
    at::Tensor rewards = weighted_rewards(scores);
    if (clip_) rewards = rewards.clamp(clip_->at(0), clip_->at(1));
    std::vector<MetricSum> metrics;
    if (beta_ != 0) {
      const at::Tensor divergence = reference_divergence(groups);
      rewards = rewards - beta_ * divergence;
      metrics.push_back({"kl", divergence.sum(at::kDouble).item<double>(), sampled_tokens(groups)});
    }
    const Advantages advantages = rloo_advantages(rewards, scores.group, normalize_);
    write(advantages, groups);
    metrics.push_back({"frac_reward_zero_std", advantages.zero_std_share, 1});
    return metrics;
  }
  std::vector<std::string> metric_names() const override {
    return with_sampling(rloo_metric_names());
  }
  LossTerms loss(Model& model, const data::Batch& batch) override {
    const PolicyTokens tokens = policy_tokens(model, batch);
    LossTerms terms = rloo_loss(tokens, epsilon_, epsilon_high_);
    add_sampling(tokens, batch, terms);
    return terms;
  }

 private:
  double beta_, epsilon_, epsilon_high_;
  bool normalize_;
  std::optional<std::vector<double>> clip_;
};

}  // namespace

std::unique_ptr<Objective> build_grpo(const recipes::Objective& objective) {
  return std::make_unique<Grpo>(objective);
}

std::unique_ptr<Objective> build_rloo(const recipes::Objective& objective) {
  return std::make_unique<Rloo>(objective);
}

}  // namespace temper::trainer
