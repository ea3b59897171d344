// KTO: completions that are good or bad by themselves (kto_loss.h). Its KL is an estimate from
// mismatched pairs, prompt i with completion i - 1 of its micro-batch (the first one with the last):
// the mean of their summed log-probability, policy minus reference, over the k-th micro-batches of
// all ranks, and at least 0.
#include <algorithm>
#include <utility>

#include <ATen/ATen.h>

#include "data/io/json.h"
#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/models/model.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/kto_loss.h"
#include "trainer/objectives/reference.h"
#include "trainer/objectives/registry.h"
#include "trainer/ops/device.h"
#include "trainer/ops/token_log_probs.h"

namespace temper::trainer {

at::Tensor kto_loss(const at::Tensor& log_ratios, const at::Tensor& desirable, double kl,
                    const KtoOptions& options) {
  const double b = options.beta;
  const double baseline = options.apo_zero_unpaired ? 0 : kl;
  // 1 - sigmoid(x) = sigmoid(-x): one form for both.
  const at::Tensor good = options.desirable_weight * at::sigmoid(b * (baseline - log_ratios));
  const at::Tensor bad = options.undesirable_weight * at::sigmoid(b * (log_ratios - baseline));
  return at::where(desirable, good, bad);
}

namespace {

bool is_desirable(const data::TokenizedRow& row) {
  const data::Json columns = data::parse_json(row.columns, "a row's columns");
  const data::Json& label = columns.at("label");
  return label.is_boolean() ? label.get<bool>() : label.get<double>() != 0;
}

size_t prompt_length(const data::Example& document) {
  const auto first = std::find(document.supervised.begin(), document.supervised.end(), 1);
  return static_cast<size_t>(first - document.supervised.begin());
}

// Prompts with the completions of the rows before them.
std::vector<data::TokenizedRow> mismatched(const std::vector<data::TokenizedRow>& rows,
                                           int64_t max_length) {
  std::vector<data::TokenizedRow> pairs;
  for (size_t i = 0; i < rows.size(); ++i) {
    const data::Example& own = rows[i].documents.front();
    const data::Example& other = rows[(i + rows.size() - 1) % rows.size()].documents.front();
    const auto prompt = static_cast<std::ptrdiff_t>(prompt_length(own));
    data::Example pair{{own.ids.begin(), own.ids.begin() + prompt},
                       std::vector<uint8_t>(static_cast<size_t>(prompt), 0)};
    pair.ids.insert(pair.ids.end(),
                    other.ids.begin() + static_cast<std::ptrdiff_t>(prompt_length(other)),
                    other.ids.end());
    pair.ids.resize(std::min(pair.ids.size(), static_cast<size_t>(max_length)));
    pair.supervised.resize(pair.ids.size(), 1);
    pairs.push_back({.documents = {std::move(pair)}, .columns = {}});
  }
  return pairs;
}

class Kto : public Objective {
 public:
  explicit Kto(const KtoOptions& options) : options_(options) {}

  std::optional<data::RowLayout> row_layout() const override { return data::RowLayout{}; }
  bool needs_reference() const override { return true; }

  void prepare(data::StepBatches& batches, const Preparation& with) override {
    for (data::Batch& batch : batches.micro_batches) {
      batch.reference_log_probs = with.reference->log_probs(batch, 1.0);
    }
    if (options_.apo_zero_unpaired) return;
    end_passes(with.model);
    // Ranks may have fewer micro-batches than others in a short last step.
    at::Tensor most =
        at::full({1}, static_cast<int64_t>(batches.micro_batches.size()), at::kLong);
    with.communicator.all_reduce(most, parallel::ReduceOp::kMax)->wait();
    at::Tensor means = at::zeros({2, most.item<int64_t>()}, at::kDouble);  // sums, ranks
    std::vector<at::Tensor> own;
    for (const data::Batch& batch : batches.micro_batches) {
      own.push_back(mean_log_ratio(batch, with));
    }
    end_passes(with.model);
    if (!own.empty()) {
      const auto count = static_cast<int64_t>(own.size());
      means[0].narrow(0, 0, count).copy_(at::stack(own));
      means[1].narrow(0, 0, count).fill_(1);
    }
    with.communicator.all_reduce(means)->wait();
    for (size_t i = 0; i < batches.micro_batches.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      batches.micro_batches[i].baseline =
          std::max(0.0, means[0][at].item<double>() / means[1][at].item<double>());
    }
  }

  LossTerms loss(Model& model, const data::Batch& batch) override {
    const data::Targets& targets = batch.targets;
    const TokenLogProbs tokens =
        token_log_probs(model.hidden(batch), model.head(), targets.positions, targets.labels);
    const at::Tensor log_probs = sum_per_completion(tokens.log_probs, targets.ends);
    const at::Tensor reference = sent_to(log_probs.device(), batch.reference_log_probs);
    const at::Tensor log_ratios = log_probs - sum_per_completion(reference, targets.ends);
    at::Tensor desirable = at::empty({batch.rows}, at::kBool);
    for (int64_t i = 0; i < batch.rows; ++i) {
      desirable[i] = is_desirable(batch.tokenized[static_cast<size_t>(i)]);
    }
    const at::Tensor good = sent_to(log_probs.device(), desirable);
    return {.sum = kto_loss(log_ratios, good, batch.baseline, options_).sum(),
            .count = count(batch),
            .metrics = metrics(batch, tokens, log_probs.detach(), log_ratios.detach(), desirable)};
  }

  std::vector<std::string> metric_names() const override {
    return {"kl",           "rewards/chosen", "rewards/rejected", "rewards/margins", "logps/chosen",
            "logps/rejected", "logits/chosen",  "logits/rejected",  "entropy"};
  }

  double count(const data::Batch& batch) const override { return static_cast<double>(batch.rows); }

 private:
  // [] float64, where the model is.
  static at::Tensor mean_log_ratio(const data::Batch& batch, const Preparation& with) {
    const data::Batch pairs =
        data::collate_rows(mismatched(batch.tokenized, with.max_length), data::RowLayout{});
    const data::Targets& targets = pairs.targets;
    const at::Tensor policy = token_log_probs(with.model.hidden(pairs), with.model.head(),
                                              targets.positions, targets.labels)
                                  .log_probs;
    const at::Tensor reference = sent_to(policy.device(), with.reference->log_probs(pairs, 1.0));
    const at::Tensor ratios = sum_per_completion(policy, targets.ends) -
                              sum_per_completion(reference, targets.ends);
    return total_of(ratios) / static_cast<double>(ratios.numel());
  }

  // The completions of one class.
  struct Class {
    double rows, tokens;
    at::Tensor places;  // where the model is

    Class(const data::Batch& batch, const at::Tensor& members, at::Device device)
        : rows(static_cast<double>(members.sum().item<int64_t>())),
          tokens(static_cast<double>(
              batch.targets.ends.diff().masked_select(members).sum().item<int64_t>())),
          places(sent_to(device, members.nonzero().squeeze(1))) {}
    at::Tensor total(const at::Tensor& values) const {
      return total_of(values.index_select(0, places));
    }
  };

  // Means over the completions, or their tokens, of one class. `desirable` is on the host.
  std::vector<LateMetric> metrics(const data::Batch& batch, const TokenLogProbs& tokens,
                                  const at::Tensor& log_probs, const at::Tensor& log_ratios,
                                  const at::Tensor& desirable) const {
    const at::Tensor logits = sum_per_completion(tokens.mean_logits, batch.targets.ends);
    const Class chosen(batch, desirable, log_probs.device());
    const Class rejected(batch, desirable.logical_not(), log_probs.device());
    const at::Tensor rewards = options_.beta * log_ratios;
    const at::Tensor of_chosen = chosen.total(rewards), of_rejected = rejected.total(rewards);
    LateMetric margins{.name = "rewards/margins"};  // of the micro-batches that have both
    if (chosen.rows > 0 && rejected.rows > 0) {
      margins.numerator = of_chosen / chosen.rows - of_rejected / rejected.rows;
      margins.denominator = 1.0;
    }
    return {{"kl", batch.baseline, 1.0},
            {"rewards/chosen", of_chosen, chosen.rows},
            {"rewards/rejected", of_rejected, rejected.rows},
            margins,
            {"logps/chosen", chosen.total(log_probs), chosen.rows},
            {"logps/rejected", rejected.total(log_probs), rejected.rows},
            {"logits/chosen", chosen.total(logits), chosen.tokens},
            {"logits/rejected", rejected.total(logits), rejected.tokens},
            token_mean("entropy", tokens.entropy, batch.targets.ends, Which::kAll)};
  }

  KtoOptions options_;
};

}  // namespace

std::unique_ptr<Objective> build_kto(const recipes::Objective& objective) {
  const std::string type = name_of_one(objective.loss_type, "kto");
  if (type != "kto" && type != "apo_zero_unpaired") {
    throw UserError("objective.loss_type = \"" + type + "\": allowed for kto: kto, apo_zero_unpaired");
  }
  return std::make_unique<Kto>(
      KtoOptions{.apo_zero_unpaired = type != "kto",
                 .beta = objective.beta.value_or(0.1),
                 .desirable_weight = objective.desirable_weight.value_or(1.0),
                 .undesirable_weight = objective.undesirable_weight.value_or(1.0)});
}

}  // namespace temper::trainer
