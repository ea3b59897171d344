// CPO: preference without a reference, plus cpo_alpha times the likelihood of the chosen completion
// (a mean over the tokens of the micro-batch, as in TRL). SimPO is loss_type = "simpo" with
// cpo_alpha = 0.
#include <utility>

#include <ATen/ATen.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/models/model.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/pair_losses.h"
#include "trainer/objectives/registry.h"
#include "trainer/ops/device.h"
#include "trainer/ops/token_log_probs.h"

namespace temper::trainer {

at::Tensor cpo_reward(const at::Tensor& log_probs, const CpoOptions& options) {
  if (options.alpha == 0) return log_probs;
  return (1 - at::exp(-options.alpha * log_probs)) / options.alpha;
}

at::Tensor cpo_loss(const at::Tensor& chosen_rewards, const at::Tensor& rejected_rewards,
                    const CpoOptions& options) {
  const double b = options.beta, e = options.label_smoothing;
  at::Tensor x = chosen_rewards - rejected_rewards;
  if (options.loss_type == "hinge") return at::relu(1 - b * x);
  if (options.loss_type == "ipo") return (x - 1 / (2 * b)).square();
  if (options.loss_type == "simpo") x = x - options.simpo_gamma / b;
  return -at::log_sigmoid(b * x) * (1 - e) - at::log_sigmoid(-b * x) * e;
}

namespace {

class Cpo : public Objective {
 public:
  Cpo(CpoOptions options, double cpo_alpha) : options_(std::move(options)), cpo_alpha_(cpo_alpha) {}

  std::optional<data::RowLayout> row_layout() const override { return data::RowLayout{}; }

  LossTerms loss(Model& model, const data::Batch& batch) override {
    const data::Targets& targets = batch.targets;
    const TokenLogProbs tokens =
        token_log_probs(model.hidden(batch), model.head(), targets.positions, targets.labels);
    const at::Tensor sums = sum_per_completion(tokens.log_probs, targets.ends);
    const at::Tensor lengths = targets.ends.diff();
    const at::Tensor log_probs =
        options_.mean_log_probs() ? sums / sent_to(sums.device(), lengths) : sums;
    const at::Tensor rewards = cpo_reward(log_probs, options_);
    const double rows = count(batch);
    at::Tensor sum = cpo_loss(chosen_of(rewards), rejected_of(rewards), options_).sum();
    LateMetric likelihood{"nll_loss", 0.0, rows};
    if (cpo_alpha_ != 0) {
      const at::Tensor nll = -chosen_of(sums).sum() / chosen_of(lengths).sum();
      sum = sum + cpo_alpha_ * rows * nll;
      likelihood.numerator = nll.detach().to(at::kDouble) * rows;
    }
    const at::Tensor worth = options_.beta * rewards.detach();
    std::vector<LateMetric> metrics = pair_metrics({.chosen_rewards = chosen_of(worth),
                                                    .rejected_rewards = rejected_of(worth),
                                                    .chosen_logps = chosen_of(log_probs),
                                                    .rejected_logps = rejected_of(log_probs)});
    metrics.push_back(std::move(likelihood));
    return {.sum = sum, .count = rows, .metrics = std::move(metrics)};
  }

  std::vector<std::string> metric_names() const override {
    return {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
            "logps/chosen",   "logps/rejected",   "nll_loss"};
  }

  double count(const data::Batch& batch) const override { return static_cast<double>(batch.rows); }

 private:
  CpoOptions options_;
  double cpo_alpha_;
};

}  // namespace

std::unique_ptr<Objective> build_cpo(const recipes::Objective& objective) {
  const CpoOptions options{.loss_type = name_of_one(objective.loss_type, "sigmoid"),
                           .beta = objective.beta.value_or(0.1),
                           .label_smoothing = objective.label_smoothing.value_or(0.0),
                           .simpo_gamma = objective.simpo_gamma.value_or(0.5),
                           .alpha = objective.alpha.value_or(0.0)};
  const std::string& type = options.loss_type;
  if (type != "sigmoid" && type != "hinge" && type != "ipo" && type != "simpo") {
    throw UserError("objective.loss_type = \"" + type + "\": allowed for cpo: sigmoid, hinge, ipo, simpo");
  }
  return std::make_unique<Cpo>(options, objective.cpo_alpha.value_or(1.0));
}

}  // namespace temper::trainer
