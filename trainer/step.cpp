#include "trainer/step.h"

#include <cmath>

#include <ATen/ATen.h>

namespace temper::trainer {

namespace {

std::vector<MetricSum> zero_metrics(const Objective& objective) {
  std::vector<MetricSum> metrics;
  for (const std::string& name : objective.metric_names()) metrics.push_back({.name = name});
  return metrics;
}

}  // namespace

void add_terms(StepSums& sums, const LossTerms& terms) {
  sums.loss += terms.sum.item<double>();
  sums.count += terms.count;
  for (size_t i = 0; i < terms.metrics.size(); ++i) {
    sums.metrics[i].numerator += terms.metrics[i].numerator;
    sums.metrics[i].denominator += terms.metrics[i].denominator;
  }
}

StepSums zero_sums(const Objective& objective) {
  StepSums sums;
  sums.metrics = zero_metrics(objective);
  return sums;
}

StepSums forward_backward(Model& model, Objective& objective, parallel::GradientReducer& reducer,
                          const data::StepBatches& batches, const std::function<void(int64_t)>& before) {
  StepSums sums = zero_sums(objective);
  reducer.begin_step();
  for (size_t i = 0; i < batches.micro_batches.size(); ++i) {
    const data::Batch& batch = batches.micro_batches[i];
    reducer.exchange_after_backward(i + 1 == batches.micro_batches.size());
    if (before) before(static_cast<int64_t>(i));
    const LossTerms terms = objective.loss(model, batch);
    terms.sum.backward();
    add_terms(sums, terms);
    sums.input_tokens += static_cast<double>(batch.input_tokens);
    sums.rows += static_cast<double>(batch.rows);
  }
  reducer.finish();
  sums.own_not_finite = std::isfinite(sums.loss) ? 0 : 1;
  return sums;
}

void exchange(StepSums& sums, parallel::Communicator& communicator) {
  std::vector<double*> fields = {&sums.loss,    &sums.count,  &sums.input_tokens, &sums.rows, &sums.stopping,
                                 &sums.written, &sums.failed};
  for (MetricSum& metric : sums.metrics) {
    fields.push_back(&metric.numerator);
    fields.push_back(&metric.denominator);
  }
  at::Tensor packed = at::empty({static_cast<int64_t>(fields.size())}, at::kDouble);
  double* values = packed.data_ptr<double>();
  for (size_t i = 0; i < fields.size(); ++i) values[i] = *fields[i];
  communicator.all_reduce(packed)->wait();
  for (size_t i = 0; i < fields.size(); ++i) *fields[i] = values[i];
}

}  // namespace temper::trainer
