#include "trainer/objectives/token_terms.h"

#include <ATen/ATen.h>

namespace temper::trainer {

LossTerms token_terms(const HeadTerms& head, double tokens) {
  return {.sum = head.sum,
          .count = tokens,
          .metrics = {{"mean_token_accuracy", head.correct, tokens},
                      {"entropy", head.entropy, tokens}}};
}

std::vector<std::string> token_metric_names() { return {"mean_token_accuracy", "entropy"}; }

}  // namespace temper::trainer
