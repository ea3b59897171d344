#include "trainer/step.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "parallel/trace.h"
#include "trainer/models/model.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {

namespace {

std::vector<MetricSum> zero_metrics(const Objective& objective) {
  std::vector<MetricSum> metrics;
  for (const std::string& name : objective.metric_names()) metrics.push_back({.name = name});
  return metrics;
}

// 1: the greatest part of a metric counts, -1: the least; 0: parts are added up.
double extreme(const MetricSum& metric) {
  return metric.name.ends_with("/max") ? 1 : metric.name.ends_with("/min") ? -1 : 0;
}

void add(MetricSum& to, const MetricSum& part) {
  const double sign = extreme(to);
  if (sign == 0) {
    to.numerator += part.numerator;
    to.denominator += part.denominator;
  } else if (part.denominator > 0) {
    const bool further = sign * part.numerator > sign * to.numerator;
    if (to.denominator == 0 || further) to.numerator = part.numerator;
    to.denominator = 1;
  }
}

// One maximum for all: a minimum is the maximum of what is negated.
void exchange_extremes(std::vector<MetricSum>& metrics, parallel::Communicator& communicator) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  std::vector<MetricSum*> extremes;
  for (MetricSum& metric : metrics) {
    if (extreme(metric) != 0) extremes.push_back(&metric);
  }
  if (extremes.empty()) return;
  at::Tensor packed = at::empty({static_cast<int64_t>(extremes.size())}, at::kDouble);
  double* value = packed.mutable_data_ptr<double>();
  for (const MetricSum* metric : extremes) {
    *value++ = metric->denominator > 0 ? extreme(*metric) * metric->numerator : kNone;
  }
  communicator.all_reduce(packed, parallel::ReduceOp::kMax)->wait();
  value = packed.mutable_data_ptr<double>();
  for (MetricSum* metric : extremes) {
    const double greatest = *value++;
    metric->denominator = greatest == kNone ? 0 : 1;
    metric->numerator = greatest == kNone ? 0 : extreme(*metric) * greatest;
  }
}

}  // namespace

void add_terms(StepSums& sums, const LossTerms& terms) {
  sums.loss += terms.sum.item<double>();
  sums.count += terms.count;
  for (size_t i = 0; i < terms.metrics.size(); ++i) add(sums.metrics[i], terms.metrics[i]);
}

StepSums zero_sums(const Objective& objective) {
  StepSums sums;
  sums.metrics = zero_metrics(objective);
  return sums;
}

StepSums forward_backward(Model& model, Objective& objective, parallel::GradientReducer& reducer,
                          const data::StepBatches& batches, const std::function<void(int64_t)>& before, float loss_gradient) {
  StepSums sums = zero_sums(objective);
  const LossGradient differentiated_with(loss_gradient);
  reducer.begin_step(static_cast<int64_t>(batches.micro_batches.size()));
  for (size_t i = 0; i < batches.micro_batches.size(); ++i) {
    const data::Batch& batch = batches.micro_batches[i];
    reducer.exchange_after_backward(i + 1 == batches.micro_batches.size());
    if (before) before(batch.number);
    const LossTerms terms = [&] {
      const parallel::TraceSpan span("forward");
      return objective.loss(model, batch);
    }();
    {
      const parallel::TraceSpan span("backward");
      terms.sum.backward(at::full_like(terms.sum, loss_gradient));
    }
    add_terms(sums, terms);
    sums.input_tokens += static_cast<double>(batch.input_tokens);
    sums.rows += static_cast<double>(batch.rows);
  }
  end_passes(model);
  reducer.finish();
  sums.own_not_finite = std::isfinite(sums.loss) ? 0 : 1;
  return sums;
}

double coming_count(const Objective& objective, const data::StepBatches& batches, parallel::Communicator& communicator) {
  at::Tensor count = at::zeros({1}, at::kDouble);
  for (const data::Batch& batch : batches.micro_batches) count += objective.count(batch);
  communicator.all_reduce(count)->wait();
  return count.item<double>();
}

void exchange(StepSums& sums, parallel::Communicator& communicator) {
  std::vector<double*> fields = {&sums.loss,    &sums.count,  &sums.input_tokens, &sums.rows, &sums.stopping,
                                 &sums.written, &sums.failed};
  for (MetricSum& metric : sums.metrics) {
    if (extreme(metric) != 0) continue;
    fields.push_back(&metric.numerator);
    fields.push_back(&metric.denominator);
  }
  at::Tensor packed = at::empty({static_cast<int64_t>(fields.size())}, at::kDouble);
  double* values = packed.data_ptr<double>();
  for (size_t i = 0; i < fields.size(); ++i) values[i] = *fields[i];
  communicator.all_reduce(packed)->wait();
  for (size_t i = 0; i < fields.size(); ++i) *fields[i] = values[i];
  exchange_extremes(sums.metrics, communicator);
}

}  // namespace temper::trainer
