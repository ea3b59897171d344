#include "trainer/objectives/advantages.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

constexpr double kEpsilon = 1e-4;

// Standard deviation over dimension `dim` of what is not NaN, with Bessel's correction; NaN for
// fewer than two. Keeps the dimension.
at::Tensor nan_std(const at::Tensor& x, int64_t dim) {
  const at::Tensor mean = at::nanmean(x, dim, true);
  const at::Tensor variance = at::nanmean((x - mean).square(), dim, true);
  const at::Tensor count = x.isnan().logical_not().sum(dim, true).to(x.scalar_type());
  const at::Tensor correction =
      at::where(count > 1, count / (count - 1), std::numeric_limits<double>::quiet_NaN());
  return (variance * correction).sqrt();
}

double share_of_zeros(const at::Tensor& std) {
  return std.isclose(at::zeros_like(std)).to(at::kDouble).mean().item<double>();
}

MetricSum metric(std::string name, const at::Tensor& value) {
  const double number = value.item<double>();
  if (std::isnan(number)) return {.name = std::move(name)};
  return {.name = std::move(name), .numerator = number, .denominator = 1};
}

// sum_f w_f v_f over columns that are numbers; NaN where `unscored`.
at::Tensor weighted_sum(const at::Tensor& values, const Scores& scores) {
  const at::Tensor weights = at::tensor(scores.weights, at::kDouble).to(at::kFloat);
  const at::Tensor unscored = scores.values.isnan().all(1);
  return at::nansum(values * weights.unsqueeze(0), 1)
      .masked_fill(unscored, std::numeric_limits<double>::quiet_NaN());
}

}  // namespace

at::Tensor weighted_rewards(const Scores& scores) { return weighted_sum(scores.values, scores); }

Advantages grpo_advantages(const Scores& scores, Aggregation aggregation, Scale scale) {
  TEMPER_CHECK(scores.values.size(0) % scores.group == 0, "completions come in whole groups");
  if (aggregation == Aggregation::kNormalizeThenSum) {
    const int64_t functions = scores.values.size(1);
    const at::Tensor grouped = scores.values.view({-1, scores.group, functions});
    const at::Tensor normalized =
        (grouped - at::nanmean(grouped, 1, true)) / (nan_std(grouped, 1) + kEpsilon);
    const at::Tensor rewards = weighted_sum(normalized.view({-1, functions}), scores);
    const at::Tensor std = nan_std(rewards, 0);
    const at::Tensor values = (rewards - at::nanmean(rewards)) / (std + kEpsilon);
    return {.values = at::nan_to_num(values, 0.0), .zero_std_share = share_of_zeros(std)};
  }
  const at::Tensor rewards = weighted_rewards(scores);
  const at::Tensor grouped = rewards.view({-1, scores.group});
  const at::Tensor std = scale == Scale::kBatch ? nan_std(rewards, 0) : nan_std(grouped, 1);
  at::Tensor values = grouped - at::nanmean(grouped, 1, true);
  if (scale != Scale::kNone) values = values / (std + kEpsilon);
  return {.values = at::nan_to_num(values.flatten(), 0.0), .zero_std_share = share_of_zeros(std)};
}

Advantages rloo_advantages(const at::Tensor& rewards, int64_t group, bool normalize) {
  TEMPER_CHECK(rewards.size(0) % group == 0, "completions come in whole groups");
  const at::Tensor grouped = rewards.view({-1, group});
  const at::Tensor scored = grouped.isnan().logical_not().sum(1, true);
  const at::Tensor others = (at::nansum(grouped, 1, true) - grouped) / (scored - 1);
  at::Tensor values = (grouped - others).flatten();
  // With a single scored completion of a group there is nothing to compare it with: 0 / 0.
  if (normalize) values = (values - at::nanmean(values)) / (nan_std(values, 0) + kEpsilon);
  return {.values = at::nan_to_num(values, 0.0),
          .zero_std_share = share_of_zeros(nan_std(grouped, 1))};
}

std::vector<MetricSum> reward_metrics(const Scores& scores, const std::vector<std::string>& names) {
  TEMPER_CHECK(static_cast<int64_t>(names.size()) == scores.values.size(1), "a name a function");
  const at::Tensor rewards = weighted_rewards(scores);
  std::vector<MetricSum> metrics = {metric("reward", at::nanmean(rewards)),
                                    metric("reward_std", nan_std(rewards, 0).squeeze(0))};
  for (size_t f = 0; f < names.size(); ++f) {
    const at::Tensor column = scores.values.select(1, static_cast<int64_t>(f));
    metrics.push_back(metric("rewards/" + names[f] + "/mean", at::nanmean(column)));
    metrics.push_back(metric("rewards/" + names[f] + "/std", nan_std(column, 0).squeeze(0)));
  }
  return metrics;
}

at::Tensor without_variance(const Scores& scores) {
  const at::Tensor grouped = weighted_rewards(scores).view({-1, scores.group});
  const double infinity = std::numeric_limits<double>::infinity();
  const at::Tensor largest = at::nan_to_num(grouped, -infinity).amax(1);
  const at::Tensor smallest = at::nan_to_num(grouped, infinity).amin(1);
  return largest <= smallest;  // a group without any score: -infinity and infinity
}

}  // namespace temper::trainer
