// A student that learns a frozen teacher's distribution of the next token. With S the student's and T
// the teacher's, both after the same tokens:
//
//     gkd:      D(T, S), the divergence of head_divergence.h (Agarwal et al. 2024, arXiv:2306.13649)
//     distill:  the same of logits divided by generation.temperature
//
// summed over supervised tokens; the trainer divides by their number over all micro-batches and
// ranks. Whose tokens these are, the row's, the student's or the teacher's, is decided where batches
// are made (trainer/rollouts/answered_rows.h).
#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "recipes/objective_kinds.h"
#include "trainer/models/model.h"
#include "trainer/objectives/reference.h"
#include "trainer/objectives/registry.h"
#include "trainer/objectives/token_terms.h"

namespace temper::trainer {
namespace {

struct Places {
  at::Tensor positions, labels;  // [n]
};

Places supervised(const data::Batch& batch) {
  if (batch.targets.positions.defined()) return {batch.targets.positions, batch.targets.labels};
  const at::Tensor labels = batch.labels.view({-1});
  const at::Tensor positions = labels.ne(-100).nonzero().squeeze(1);
  return {positions, labels.index_select(0, positions)};
}

class Distillation : public Objective {
 public:
  Distillation(const recipes::Objective& objective, double beta, bool tempered)
      : options_{.beta = objective.beta.value_or(beta)},
        tempered_(tempered),
        samples_(recipes::samples_completions(objective)) {}

  std::optional<data::RowLayout> row_layout() const override {
    return samples_ ? std::optional(data::RowLayout{}) : std::nullopt;
  }
  bool needs_reference() const override { return true; }

  void prepare(data::StepBatches& /*batches*/, const Preparation& with) override {
    teacher_ = with.reference->model();
    if (tempered_) options_.temperature = with.temperature;
  }

  LossTerms loss(Model& model, const data::Batch& batch) override {
    TEMPER_CHECK(teacher_ != nullptr, "prepared with a teacher");
    const auto [positions, labels] = supervised(batch);
    at::Tensor taught;
    {
      const at::NoGradGuard frozen;
      taught = teacher_->hidden(batch);
    }
    return token_terms(head_divergence_terms(model.hidden(batch), model.head(), taught,
                                             teacher_->head(), positions, labels, options_),
                       count(batch));
  }

  std::vector<std::string> metric_names() const override { return token_metric_names(); }

  double count(const data::Batch& batch) const override {
    return static_cast<double>(batch.supervised);
  }

 private:
  DivergenceOptions options_;
  bool tempered_, samples_;
  Model* teacher_ = nullptr;
};

}  // namespace

std::unique_ptr<Objective> build_gkd(const recipes::Objective& objective) {
  return std::make_unique<Distillation>(objective, 0.5, false);
}

std::unique_ptr<Objective> build_distill(const recipes::Objective& objective) {
  return std::make_unique<Distillation>(objective, 1.0, true);
}

}  // namespace temper::trainer
