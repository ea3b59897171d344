#include "trainer/step.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "parallel/trace.h"
#include "recipes/diagnostic.h"
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

// Of each micro-batch its sum, then what its metrics have not known yet, in one copy.
at::Tensor fetched(std::span<const LossTerms> terms) {
  if (terms.empty()) return at::empty({0}, at::kDouble);
  std::vector<at::Tensor> parts;
  const auto add_late = [&](const LateNumber& number) {
    const auto* late = std::get_if<at::Tensor>(&number);
    if (late == nullptr) return;
    TEMPER_CHECK(!late->requires_grad(), "a metric's number would keep its micro-batch's graph");
    parts.push_back(*late);
  };
  for (const LossTerms& of_batch : terms) {
    parts.push_back(of_batch.sum.detach().to(at::kDouble));
    for (const LateMetric& metric : of_batch.metrics) {
      add_late(metric.numerator);
      add_late(metric.denominator);
    }
  }
  return at::stack(parts).cpu();
}

}  // namespace

void add_terms(StepSums& sums, std::span<const LossTerms> terms) {
  const at::Tensor values = fetched(terms);
  const double* value = values.const_data_ptr<double>();
  const auto known = [&](const LateNumber& number) {
    const auto* by_host = std::get_if<double>(&number);
    return by_host != nullptr ? *by_host : *value++;
  };
  for (const LossTerms& of_batch : terms) {
    sums.loss += *value++;
    sums.count += of_batch.count;
    for (size_t i = 0; i < of_batch.metrics.size(); ++i) {
      const double numerator = known(of_batch.metrics[i].numerator);
      add(sums.metrics[i], {of_batch.metrics[i].name, numerator, known(of_batch.metrics[i].denominator)});
    }
  }
}

StepSums zero_sums(const Objective& objective) {
  StepSums sums;
  sums.metrics = zero_metrics(objective);
  return sums;
}

StepSums forward_backward(Model& model, Objective& objective, parallel::GradientReducer& reducer,
                          const data::StepBatches& batches, const std::function<void(int64_t)>& before, float loss_gradient,
                          RecordedPasses* recorded) {
  StepSums sums = zero_sums(objective);
  std::vector<LossTerms> all;
  const LossGradient differentiated_with(loss_gradient);
  const auto pass = [&](const data::Batch& batch) {
    LossTerms terms = [&] {
      const parallel::TraceSpan span("forward");
      return objective.loss(model, batch);
    }();
    const parallel::TraceSpan span("backward");
    terms.sum.backward(at::full_like(terms.sum, loss_gradient));
    terms.sum = terms.sum.detach();
    return terms;
  };
  if (recorded) recorded->record(batches, pass);
  reducer.begin_step(static_cast<int64_t>(batches.micro_batches.size()));
  for (size_t i = 0; i < batches.micro_batches.size(); ++i) {
    const data::Batch& batch = batches.micro_batches[i];
    reducer.exchange_after_backward(i + 1 == batches.micro_batches.size());
    if (before) before(batch.number);
    if (!recorded) {
      all.push_back(pass(batch));
    } else {
      all.push_back(reducer.exchanging() ? recorded->anew(batch, pass) : recorded->run(batch, pass));
    }
    sums.input_tokens += static_cast<double>(batch.input_tokens);
    sums.rows += static_cast<double>(batch.rows);
  }
  end_passes(model);
  reducer.finish();
  add_terms(sums, all);
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
