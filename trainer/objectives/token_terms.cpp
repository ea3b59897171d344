#include "trainer/objectives/token_terms.h"

#include <ATen/ATen.h>

namespace temper::trainer {

LossTerms token_terms(const HeadTerms& head, double tokens) {
  LossTerms terms{.sum = head.sum, .count = tokens, .metrics = {}};
  for (const std::string& name : token_metric_names()) terms.metrics.push_back({name, 0, tokens});
  if (head.sum.is_cpu()) {
    terms.metrics[0].numerator = head.correct.item<double>();
    terms.metrics[1].numerator = head.entropy.item<double>();
  } else {
    terms.late = at::stack({head.correct, head.entropy});
  }
  return terms;
}

std::vector<std::string> token_metric_names() { return {"mean_token_accuracy", "entropy"}; }

}  // namespace temper::trainer
