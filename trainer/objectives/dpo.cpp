// Direct preference optimization (Rafailov et al. 2023, arXiv:2305.18290) and its family: a pair's
// loss is a function (dpo_losses.h) of four numbers, the log-probabilities of both completions under
// the policy and under the reference. `loss` is the mean over the pairs of the global batch; losses
// that look at other pairs (aot, sft) see those of their micro-batch, as in TRL.
#include <utility>

#include <ATen/ATen.h>

#include "data/loader/batch.h"
#include "trainer/models/model.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/dpo_losses.h"
#include "trainer/objectives/reference.h"
#include "trainer/objectives/registry.h"
#include "trainer/ops/device.h"
#include "trainer/ops/token_log_probs.h"

namespace temper::trainer {
namespace {

class Dpo : public Objective {
 public:
  Dpo(DpoOptions options, std::optional<double> ld_alpha, bool weighting)
      : options_(std::move(options)), ld_alpha_(ld_alpha), weighting_(weighting) {}

  std::optional<data::RowLayout> row_layout() const override { return data::RowLayout{}; }
  bool needs_reference() const override { return true; }

  void prepare(data::StepBatches& batches, const Preparation& with) override {
    for (data::Batch& batch : batches.micro_batches) {
      batch.reference_log_probs = with.reference->log_probs(batch, 1.0);
    }
  }

  LossTerms loss(Model& model, const data::Batch& batch) override {
    const data::Targets& targets = batch.targets;
    const TokenLogProbs tokens =
        token_log_probs(model.hidden(batch), model.head(), targets.positions, targets.labels,
                        {.sum_of_squares = weighting_});
    const at::Device device = tokens.log_probs.device();
    const Pair policy = pair_of(completion_log_probs(tokens.log_probs, targets.ends));
    const at::Tensor reference = sent_to(device, batch.reference_log_probs);
    DpoInputs inputs{
        .policy = policy,
        .reference = pair_of(completion_log_probs(reference, targets.ends)),
        .lengths = pair_of(sent_to(device, completion_lengths(batch))),
        .chosen_nll = mean_chosen_nll(tokens.log_probs, targets.ends)};
    if (weighting_) {
      inputs.weights = wpo_weights(tokens.log_probs, tokens.log_sum_squares, targets.ends);
    }
    std::vector<LateMetric> metrics = pair_metrics(
        {.chosen_rewards = options_.beta * (policy.chosen - inputs.reference.chosen).detach(),
         .rejected_rewards = options_.beta * (policy.rejected - inputs.reference.rejected).detach(),
         .chosen_logps = policy.chosen,
         .rejected_logps = policy.rejected});
    const auto add = [&](const char* name, const at::Tensor& values, Which which) {
      metrics.push_back(token_mean(name, values, targets.ends, which));
    };
    add("logits/chosen", tokens.mean_logits, Which::kChosen);
    add("logits/rejected", tokens.mean_logits, Which::kRejected);
    add("mean_token_accuracy", tokens.correct, Which::kChosen);
    add("entropy", tokens.entropy, Which::kAll);
    return {.sum = dpo_loss(inputs, options_).sum(),
            .count = count(batch),
            .metrics = std::move(metrics)};
  }

  std::vector<std::string> metric_names() const override {
    return {"rewards/chosen", "rewards/rejected", "rewards/accuracies",  "rewards/margins",
            "logps/chosen",   "logps/rejected",   "logits/chosen",       "logits/rejected",
            "mean_token_accuracy", "entropy"};
  }

  double count(const data::Batch& batch) const override { return static_cast<double>(batch.rows); }

 private:
  at::Tensor completion_log_probs(const at::Tensor& log_probs, const at::Tensor& ends) const {
    if (!ld_alpha_) return sum_per_completion(log_probs, ends);
    const at::Tensor weights = sent_to(log_probs.device(), ld_weights(ends, *ld_alpha_));
    return sum_per_completion(log_probs * weights, ends);
  }

  static at::Tensor mean_chosen_nll(const at::Tensor& log_probs, const at::Tensor& ends) {
    const int64_t tokens = chosen_of(ends.diff()).sum().item<int64_t>();
    return -chosen_of(sum_per_completion(log_probs, ends)).sum() / static_cast<double>(tokens);
  }

  DpoOptions options_;
  std::optional<double> ld_alpha_;
  bool weighting_;
};

}  // namespace

std::unique_ptr<Objective> build_dpo(const recipes::Objective& objective) {
  DpoOptions options{.loss_weights = objective.loss_weights.value_or(std::vector<double>{}),
                     .beta = objective.beta.value_or(0.1),
                     .label_smoothing = objective.label_smoothing.value_or(0.0),
                     .f_divergence_type = objective.f_divergence_type.value_or("reverse_kl"),
                     .f_alpha_divergence_coef = objective.f_alpha_divergence_coef.value_or(0.5),
                     .discopop_tau = objective.discopop_tau.value_or(0.05)};
  if (objective.loss_type) options.loss_types = names_of(*objective.loss_type);
  check(options);
  return std::make_unique<Dpo>(std::move(options), objective.ld_alpha,
                               objective.use_weighting.value_or(false));
}

}  // namespace temper::trainer
