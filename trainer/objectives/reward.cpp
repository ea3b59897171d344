// A reward model: a head with one output, read at the last token of each text that is not padding, and the Bradley-Terry
// likelihood of the preferred one being ahead (pair_losses.h). min_reward and max_reward are means
// over micro-batches of each one's least and greatest.
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "data/io/json.h"
#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/models/model.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/pair_losses.h"
#include "trainer/objectives/registry.h"
#include "trainer/ops/device.h"
#include "trainer/ops/head_scores.h"

namespace temper::trainer {

at::Tensor reward_loss(const at::Tensor& chosen, const at::Tensor& rejected,
                       const std::optional<at::Tensor>& margin, double center_coefficient) {
  const at::Tensor ahead = margin ? chosen - rejected - *margin : chosen - rejected;
  const at::Tensor loss = -at::log_sigmoid(ahead);
  return center_coefficient == 0 ? loss : loss + center_coefficient * (chosen + rejected).square();
}

namespace {

// The column `margin`, where the rows have it, [B] on `device`.
std::optional<at::Tensor> margins(const data::Batch& batch, at::Device device) {
  std::vector<float> margins;
  for (const data::TokenizedRow& row : batch.tokenized) {
    if (row.columns.empty()) continue;
    const data::Json columns = data::parse_json(row.columns, "a row's columns");
    if (columns.contains("margin")) margins.push_back(columns.at("margin").get<float>());
  }
  if (margins.empty()) return std::nullopt;
  if (margins.size() != batch.tokenized.size()) {
    throw UserError("data: some rows have a margin and others none: give all rows one, or none");
  }
  return sent_to(device, at::tensor(margins));
}

std::optional<int32_t> pad_id(const Model& model) {
  const data::Json& config = model.config().json;
  const auto found = config.find("pad_token_id");
  if (found == config.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int32_t>();
}

class RewardModel : public Objective {
 public:
  explicit RewardModel(double center_coefficient) : center_coefficient_(center_coefficient) {}

  std::optional<data::RowLayout> row_layout() const override { return data::RowLayout{}; }

  LossTerms loss(Model& model, const data::Batch& batch) override {
    const at::Tensor scores =
        head_scores(model.hidden(batch), model.head(), score_positions(batch, pad_id(model)))
            .squeeze(1);
    const at::Tensor chosen = chosen_of(scores), rejected = rejected_of(scores);
    const at::Tensor values = scores.detach(), ahead = (chosen - rejected).detach();
    const double rows = count(batch);
    const std::optional<at::Tensor> margin = margins(batch, scores.device());
    return {.sum = reward_loss(chosen, rejected, margin, center_coefficient_).sum(),
            .count = rows,
            .metrics = {{"min_reward", values.min().to(at::kDouble), 1.0},
                        {"mean_reward", total_of(values), 2 * rows},
                        {"max_reward", values.max().to(at::kDouble), 1.0},
                        {"accuracy", total_of(ahead.gt(0)), rows},
                        {"margin", total_of(ahead), rows}}};
  }

  std::vector<std::string> metric_names() const override {
    return {"min_reward", "mean_reward", "max_reward", "accuracy", "margin"};
  }

  double count(const data::Batch& batch) const override { return static_cast<double>(batch.rows); }

 private:
  double center_coefficient_;
};

}  // namespace

std::unique_ptr<Objective> build_reward_model(const recipes::Objective& objective) {
  return std::make_unique<RewardModel>(objective.center_rewards_coefficient.value_or(0.0));
}

}  // namespace temper::trainer
