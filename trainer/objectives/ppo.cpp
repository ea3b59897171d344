// Proximal policy optimisation: the formulas are in ppo_losses.h, the value head in
// models/value_head.h.
#include <vector>

#include <ATen/ATen.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/models/value_head.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/grpo_losses.h"
#include "trainer/objectives/ppo_losses.h"
#include "trainer/objectives/registry.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/ops/device.h"
#include "trainer/ops/token_log_probs.h"
#include "trainer/ops/token_values.h"

namespace temper::trainer {
namespace {

using Completions = std::vector<SampledCompletion*>;

Completions completions_of(SampledGroups& groups) {
  Completions completions;
  for (SampledGroup& group : groups) {
    for (SampledCompletion& completion : group.completions) completions.push_back(&completion);
  }
  return completions;
}

// What each completion has in `member`, one after the other.
at::Tensor joined(const Completions& completions, std::vector<float> SampledCompletion::* member) {
  std::vector<float> all;
  for (const SampledCompletion* completion : completions) {
    const std::vector<float>& part = completion->*member;
    all.insert(all.end(), part.begin(), part.end());
  }
  return at::tensor(all, at::kFloat);
}

ScoredTokens scored_tokens(const Completions& completions, const PpoOptions& options) {
  std::vector<int64_t> ends = {0};
  std::vector<float> scores;
  for (const SampledCompletion* completion : completions) {
    ends.push_back(ends.back() + static_cast<int64_t>(completion->ids.size()));
    const double penalty = completion->truncated ? options.missing_eos_penalty.value_or(0) : 0;
    scores.push_back(static_cast<float>(completion->reward - penalty));
  }
  ScoredTokens tokens{.log_probs = joined(completions, &SampledCompletion::old_log_probs),
                      .reference_log_probs = {},
                      .values = joined(completions, &SampledCompletion::values),
                      .ends = at::tensor(ends, at::kLong),
                      .scores = at::tensor(scores, at::kFloat)};
  if (options.kl_coef != 0) {
    tokens.reference_log_probs = joined(completions, &SampledCompletion::reference_log_probs);
  }
  TEMPER_CHECK(tokens.log_probs.numel() == ends.back() && tokens.values.numel() == ends.back(),
               "a log-probability and a value for each token");
  return tokens;
}

// Means over completions, as TRL names them.
std::vector<MetricSum> metrics_of(const ScoredTokens& tokens, const Completions& completions,
                                  const PpoOptions& options) {
  const auto count = static_cast<double>(completions.size());
  const double divergence =
      options.kl_coef != 0
          ? total_of(tokens.log_probs - tokens.reference_log_probs).item<double>()
          : 0;
  const double penalty = -options.kl_coef * divergence;
  const at::Tensor scores = tokens.scores.masked_select(tokens.scores.isnan().logical_not());
  const auto scored = static_cast<double>(scores.numel());
  const double score = total_of(scores).item<double>();
  double ended = 0;
  for (const SampledCompletion* completion : completions) ended += completion->truncated ? 0 : 1;
  const double entropy = -total_of(tokens.log_probs).item<double>();
  std::vector<MetricSum> metrics = {{"objective/entropy", entropy, count},
                                    {"objective/scores", score, scored},
                                    {"val/num_eos_tokens", ended, 1}};
  if (options.kl_coef != 0) {
    metrics.push_back({"objective/kl", divergence, count});
    metrics.push_back({"objective/non_score_reward", penalty, count});
  }
  metrics.push_back({"objective/rlhf_reward", penalty / count + score / std::max(scored, 1.0),
                     scored > 0 ? 1.0 : 0.0});
  return metrics;
}

class Ppo : public RolloutObjective {
 public:
  explicit Ppo(const recipes::Objective& objective) : options_(ppo_options(objective)) {}

  std::optional<data::RowLayout> row_layout() const override { return data::RowLayout{}; }
  bool needs_reference() const override { return options_.kl_coef != 0; }
  bool needs_value_head() const override { return true; }
  bool needs_old_log_probs() const override { return true; }
  double count(const data::Batch& batch) const override {
    return static_cast<double>(batch.targets.labels.numel());
  }
  std::vector<std::string> metric_names() const override {
    std::vector<std::string> names = ppo_metric_names();
    for (std::string& name : sampling_metric_names()) names.push_back(std::move(name));
    return names;
  }

  at::Tensor values(Model& model, const at::Tensor& hidden,
                    const data::Batch& batch) const override {
    const ValueHead head = value_head(model);
    return token_values(hidden, head.weight, head.bias, batch.targets.positions);
  }

  std::vector<MetricSum> judge(SampledGroups& groups, const Scores& /*scores*/) const override {
    const Completions completions = completions_of(groups);
    const ScoredTokens tokens = scored_tokens(completions, options_);
    const PpoTargets targets = ppo_targets(tokens, options_);
    const float* advantage = targets.advantages.const_data_ptr<float>();
    const float* target = targets.returns.const_data_ptr<float>();
    const int64_t* end = tokens.ends.const_data_ptr<int64_t>();
    for (size_t c = 0; c < completions.size(); ++c) {
      completions[c]->token_advantages.assign(advantage + end[c], advantage + end[c + 1]);
      completions[c]->returns.assign(target + end[c], target + end[c + 1]);
      // What is shown of it.
      completions[c]->advantage = 0;
      for (const float a : completions[c]->token_advantages) {
        completions[c]->advantage += a / static_cast<float>(end[c + 1] - end[c]);
      }
    }
    return metrics_of(tokens, completions, options_);
  }

  LossTerms loss(Model& model, const data::Batch& batch) override {
    const data::Rollout& rollout = batch.rollout;
    const at::Tensor hidden = model.hidden(batch);
    const TokenLogProbs now =
        token_log_probs(hidden, model.head(), batch.targets.positions, batch.targets.labels,
                        {.temperature = rollout.temperature});
    const auto there = [&](const at::Tensor& of_batch) {
      return sent_to(now.log_probs.device(), of_batch);
    };
    const PpoTokens tokens{.log_probs = now.log_probs,
                           .values = values(model, hidden, batch),
                           .entropy = now.entropy,
                           .old_log_probs = there(rollout.old_log_probs),
                           .old_values = there(rollout.old_values),
                           .advantages = there(rollout.token_advantages),
                           .returns = there(rollout.returns)};
    LossTerms terms = ppo_loss(tokens, options_);
    for (LateMetric& metric :
         sampling_metrics(tokens.old_log_probs, there(rollout.sampling_log_probs))) {
      terms.metrics.push_back(std::move(metric));
    }
    return terms;
  }

 private:
  PpoOptions options_;
};

}  // namespace

std::unique_ptr<Objective> build_ppo(const recipes::Objective& objective) {
  return std::make_unique<Ppo>(objective);
}

}  // namespace temper::trainer
