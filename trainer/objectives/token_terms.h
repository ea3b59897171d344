#pragma once

#include <string>
#include <vector>

#include "trainer/objectives/objective.h"
#include "trainer/ops/head_terms.h"

namespace temper::trainer {

/// The terms of a loss over supervised tokens that an output head has summed up, and the names of
/// their metrics.
LossTerms token_terms(const HeadTerms& head, double tokens);
std::vector<std::string> token_metric_names();

}  // namespace temper::trainer
