#pragma once

#include <vector>

#include "trainer/step.h"

namespace temper::trainer {

/// The metrics of one micro-batch, fetched as a step does.
inline std::vector<MetricSum> known_metrics(const LossTerms& terms) {
  StepSums sums;
  for (const LateMetric& metric : terms.metrics) sums.metrics.push_back({.name = metric.name});
  add_terms(sums, terms);
  return sums.metrics;
}

}  // namespace temper::trainer
