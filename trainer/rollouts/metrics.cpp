#include "trainer/rollouts/metrics.h"

#include <algorithm>
#include <string>

#include <ATen/ATen.h>

namespace temper::trainer {
namespace {

void add_spread(std::vector<MetricSum>& metrics, const std::string& what,
                std::vector<double> lengths) {
  if (lengths.empty()) lengths.push_back(0);
  const auto [least, most] = std::minmax_element(lengths.begin(), lengths.end());
  double sum = 0;
  for (const double length : lengths) sum += length;
  metrics.push_back({"completions/mean_" + what, sum, static_cast<double>(lengths.size())});
  metrics.push_back({"completions/min_" + what, *least, 1});
  metrics.push_back({"completions/max_" + what, *most, 1});
}

}  // namespace

std::vector<MetricSum> length_metrics(const SampledGroups& groups) {
  std::vector<double> all, terminated;
  for (const SampledGroup& group : groups) {
    for (const SampledCompletion& completion : group.completions) {
      all.push_back(static_cast<double>(completion.ids.size()));
      if (!completion.truncated) terminated.push_back(all.back());
    }
  }
  std::vector<MetricSum> metrics;
  add_spread(metrics, "length", all);
  metrics.push_back({"completions/clipped_ratio",
                     static_cast<double>(all.size() - terminated.size()),
                     static_cast<double>(all.size())});
  add_spread(metrics, "terminated_length", terminated);
  return metrics;
}

at::Tensor reference_divergence(const SampledGroups& groups) {
  std::vector<float> sums;
  for (const SampledGroup& group : groups) {
    for (const SampledCompletion& completion : group.completions) {
      double sum = 0;
      for (size_t i = 0; i < completion.old_log_probs.size(); ++i) {
        sum += static_cast<double>(completion.old_log_probs[i]) - completion.reference_log_probs[i];
      }
      sums.push_back(static_cast<float>(sum));
    }
  }
  return at::tensor(sums, at::kFloat);
}

double sampled_tokens(const SampledGroups& groups) {
  double tokens = 0;
  for (const SampledGroup& group : groups) {
    for (const SampledCompletion& completion : group.completions) {
      tokens += static_cast<double>(completion.old_log_probs.size());
    }
  }
  return std::max(tokens, 1.0);
}

}  // namespace temper::trainer
