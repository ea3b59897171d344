// Supervised fine-tuning. With p the model's probability of a supervised token given what precedes
// it:
//
//     nll:  -log p
//     dft:  -p log p, the factor p held constant (Wu et al. 2025, arXiv:2508.05629)
//
// summed over supervised tokens; the trainer divides by their number over all micro-batches and
// ranks, as TRL 1.16 does.
#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/models/model.h"
#include "trainer/objectives/registry.h"
#include "trainer/objectives/token_terms.h"

namespace temper::trainer {
namespace {

class Sft : public Objective {
 public:
  explicit Sft(TokenLoss kind) : kind_(kind) {}

  LossTerms loss(Model& model, const data::Batch& batch) override {
    return token_terms(
        head_cross_entropy_terms(model.hidden(batch), model.head(), batch.labels, kind_),
        count(batch));
  }

  std::vector<std::string> metric_names() const override { return token_metric_names(); }

  double count(const data::Batch& batch) const override {
    return static_cast<double>(batch.supervised);
  }

 private:
  TokenLoss kind_;
};

}  // namespace

std::unique_ptr<Objective> build_sft(const recipes::Objective& objective) {
  const recipes::NamesOrPattern type = objective.loss_type.value_or("nll");
  if (type == recipes::NamesOrPattern("nll")) return std::make_unique<Sft>(TokenLoss::kNll);
  if (type == recipes::NamesOrPattern("dft")) return std::make_unique<Sft>(TokenLoss::kDft);
  throw UserError("objective.loss_type: allowed for sft: nll, dft");
}

}  // namespace temper::trainer
