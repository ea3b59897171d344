// ORPO (Hong et al. 2024, arXiv:2403.07691): the likelihood of the chosen text, prompt and completion
// (a mean over the tokens of the micro-batch, as in TRL), minus beta log sigmoid of the log odds
// between both completions.
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "data/loader/batch.h"
#include "trainer/models/model.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/pair_losses.h"
#include "trainer/objectives/registry.h"
#include "trainer/ops/device.h"
#include "trainer/ops/token_log_probs.h"

namespace temper::trainer {
namespace {

// log(1 - exp(x)) of x < 0; two forms, since each cancels on the other's side of -log 2.
at::Tensor log1mexp(const at::Tensor& x) {
  const at::Tensor small = x.lt(-0.6931471805599453);
  // Where a form is not taken its argument is replaced, so that its gradient is finite.
  const at::Tensor low = at::where(small, x, at::full_like(x, -1));
  const at::Tensor high = at::where(small, at::full_like(x, -0.5), x);
  return at::where(small, at::log1p(-at::exp(low)), at::log(-at::expm1(high)));
}

// Which of the targets of prompts and completions alike the loss looks at: all of the chosen text,
// and the rejected completion.
struct Selection {
  std::vector<int64_t> taken;                     // into the targets
  std::vector<int64_t> text_ends{0};              // [B + 1]: of the chosen texts, in `taken`'s order
  std::vector<int64_t> completions, ends{0};      // into `taken`: the completions' own
};

Selection select(const data::Batch& batch) {
  Selection selection;
  int64_t target = 0;
  for (const data::TokenizedRow& row : batch.tokenized) {
    for (size_t d = 0; d < row.documents.size(); ++d) {
      const std::vector<uint8_t>& supervised = row.documents[d].supervised;
      for (size_t t = 1; t < supervised.size(); ++t, ++target) {
        if (d == 1 && supervised[t] == 0) continue;
        if (supervised[t] != 0) {
          selection.completions.push_back(static_cast<int64_t>(selection.taken.size()));
        }
        selection.taken.push_back(target);
      }
      selection.ends.push_back(static_cast<int64_t>(selection.completions.size()));
      selection.text_ends.push_back(static_cast<int64_t>(selection.taken.size()));
    }
  }
  return selection;
}

class Orpo : public Objective {
 public:
  explicit Orpo(double beta) : beta_(beta) {}

  std::optional<data::RowLayout> row_layout() const override {
    return data::RowLayout{.prompts_too = true};
  }

  LossTerms loss(Model& model, const data::Batch& batch) override {
    const Selection selection = select(batch);
    const at::Tensor taken = at::tensor(selection.taken, at::kLong);
    const at::Tensor log_probs =
        token_log_probs(model.hidden(batch), model.head(),
                        batch.targets.positions.index_select(0, taken),
                        batch.targets.labels.index_select(0, taken))
            .log_probs;
    const at::Tensor text_ends = at::tensor(selection.text_ends, at::kLong);
    const at::Tensor nll = -chosen_of(sum_per_completion(log_probs, text_ends)).sum() /
                           chosen_of(text_ends.diff()).sum();

    const at::Tensor ends = at::tensor(selection.ends, at::kLong);
    const auto there = [&](const at::Tensor& host) { return sent_to(log_probs.device(), host); };
    const at::Tensor own =
        log_probs.index_select(0, there(at::tensor(selection.completions, at::kLong)));
    const at::Tensor means = sum_per_completion(own, ends) / there(ends.diff());
    const at::Tensor odds = log_odds(chosen_of(means), rejected_of(means));
    const at::Tensor ratio = at::log_sigmoid(odds);
    const double rows = count(batch);
    const at::Tensor worth = beta_ * means.detach();
    std::vector<LateMetric> metrics = pair_metrics({.chosen_rewards = chosen_of(worth),
                                                    .rejected_rewards = rejected_of(worth),
                                                    .chosen_logps = chosen_of(means),
                                                    .rejected_logps = rejected_of(means)});
    metrics.push_back({"nll_loss", nll.detach().to(at::kDouble) * rows, rows});
    metrics.push_back({"log_odds_ratio", total_of(ratio.detach()), rows});
    metrics.push_back({"log_odds_chosen", total_of(odds.detach()), rows});
    return {.sum = rows * nll - beta_ * ratio.sum(), .count = rows, .metrics = std::move(metrics)};
  }

  std::vector<std::string> metric_names() const override {
    return {"rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins",
            "logps/chosen",   "logps/rejected",   "nll_loss",           "log_odds_ratio",
            "log_odds_chosen"};
  }

  double count(const data::Batch& batch) const override { return static_cast<double>(batch.rows); }

 private:
  double beta_;
};

}  // namespace

at::Tensor log_odds(const at::Tensor& chosen, const at::Tensor& rejected) {
  return (chosen - rejected) - (log1mexp(chosen) - log1mexp(rejected));
}

std::unique_ptr<Objective> build_orpo(const recipes::Objective& objective) {
  return std::make_unique<Orpo>(objective.beta.value_or(0.1));
}

}  // namespace temper::trainer
