#include "trainer/objectives/grpo_losses.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/objectives/completions.h"
#include "trainer/objectives/registry.h"
#include "trainer/ops/device.h"

namespace temper::trainer {
namespace {

// What all loss types are made from. The level of a ratio is a token ([n]) or a completion ([C]);
// the other tensors are per token.
struct Terms {
  const PolicyTokens& tokens;
  const GrpoOptions& options;
  int64_t completions;
  at::Tensor owner{};             // [n]
  at::Tensor lengths{};           // [C] float64, 1 where there are no targets
  at::Tensor advantages{};        // [n]
  at::Tensor log_ratio{};         // [n]
  at::Tensor ratio{};             // at its level
  at::Tensor ratio_advantages{};  // at the ratio's level

  at::Tensor to_tokens(const at::Tensor& x) const {
    return options.sequence_level ? x.index_select(0, owner) : x;
  }
  // Per completion, [C] float64.
  at::Tensor sums(const at::Tensor& x) const {
    return at::zeros({completions}, lengths.options()).index_add(0, owner, x.to(at::kDouble));
  }
  // [] float64.
  at::Tensor total(const at::Tensor& x) const { return sums(x).sum(); }
};

Terms make_terms(const PolicyTokens& tokens, const GrpoOptions& options) {
  Terms t{.tokens = tokens, .options = options, .completions = tokens.advantages.numel()};
  TEMPER_CHECK(tokens.ends.numel() == t.completions + 1, "an advantage for each completion");
  const at::Device device = tokens.log_probs.device();
  t.owner = sent_to(device, owners(tokens.ends));
  t.lengths = sent_to(device, at::diff(tokens.ends).to(at::kDouble).clamp_min(1));
  t.advantages = tokens.advantages.index_select(0, t.owner);
  const at::Tensor& old =
      tokens.old_log_probs.defined() ? tokens.old_log_probs : tokens.log_probs.detach();
  t.log_ratio = tokens.log_probs - old;
  t.ratio = options.sequence_level ? (t.sums(t.log_ratio) / t.lengths).to(at::kFloat).exp()
                                   : t.log_ratio.exp();
  t.ratio_advantages = options.sequence_level ? tokens.advantages : t.advantages;
  return t;
}

at::Tensor capped_ratio(const Terms& t) {
  return t.options.delta ? t.ratio.clamp_max(*t.options.delta) : t.ratio;
}

at::Tensor clipped(const Terms& t) {
  const at::Tensor inside = t.ratio.clamp(1 - t.options.epsilon, 1 + t.options.epsilon_high);
  return t.to_tokens(
      -at::minimum(capped_ratio(t) * t.ratio_advantages, inside * t.ratio_advantages));
}

at::Tensor cispo(const Terms& t) {
  const at::Tensor weight = t.ratio.clamp_max(t.options.epsilon_high).detach();
  return -t.to_tokens(weight * t.ratio_advantages) * t.tokens.log_probs;
}

at::Tensor sapo(const Terms& t) {
  const auto full = [&](double value) { return at::full_like(t.ratio_advantages, value); };
  const at::Tensor temperature =
      at::where(t.ratio_advantages > 0, full(t.options.sapo_temperature_pos),
                full(t.options.sapo_temperature_neg));
  const at::Tensor soft = (temperature * (t.ratio - 1)).sigmoid() * 4 / temperature;
  return t.to_tokens(-soft * t.ratio_advantages);
}

// phi(w) of each completion, [C], held constant.
at::Tensor vespo_weights(const Terms& t) {
  const double smallest = std::log(1e-8), largest = 20;
  const at::Tensor log_w =
      t.sums(t.log_ratio.detach().clamp(-largest, largest)).to(at::kFloat).clamp(smallest, largest);
  const at::Tensor positive = t.tokens.advantages >= 0;
  const auto by_sign = [&](double of_positive, double of_negative) {
    return at::where(positive, at::full_like(log_w, of_positive),
                     at::full_like(log_w, of_negative));
  };
  const at::Tensor k = by_sign(t.options.vespo_k_pos, t.options.vespo_k_neg);
  const at::Tensor lambda =
      by_sign(t.options.vespo_lambda_pos, t.options.vespo_lambda_neg).clamp_min(1e-4);
  return at::nan_to_num((lambda + k * log_w - lambda * log_w.exp()).exp(), 0.0, 0.0, 0.0);
}

at::Tensor vespo(const Terms& t) {
  return -vespo_weights(t).index_select(0, t.owner) * t.advantages * t.tokens.log_probs;
}

// From losses per token [n] to a sum over completions.
at::Tensor completion_means(const Terms& t, const at::Tensor& x) {
  return (t.sums(x) / t.lengths).sum();
}

at::Tensor micro_batch_mean(const Terms& t, const at::Tensor& x) {
  const double tokens = std::max<double>(1, static_cast<double>(x.numel()));
  return t.total(x) / tokens * static_cast<double>(t.completions);
}

at::Tensor by_longest(const Terms& t, const at::Tensor& x) {
  return t.total(x) / static_cast<double>(t.options.max_completion_length);
}

at::Tensor by_mean_tokens(const Terms& t, const at::Tensor& x) {
  return t.total(x) / t.tokens.mean_tokens;
}

at::Tensor completion_totals(const Terms& t, const at::Tensor& x) { return t.total(x); }

struct LossRow {
  const char* name;
  at::Tensor (*per_token)(const Terms&);
  at::Tensor (*summed)(const Terms&, const at::Tensor&);
};

constexpr LossRow kLosses[] = {
    {"grpo", clipped, completion_means},   {"bnpo", clipped, micro_batch_mean},
    {"dr_grpo", clipped, by_longest},      {"dapo", clipped, by_mean_tokens},
    {"cispo", cispo, by_mean_tokens},      {"sapo", sapo, completion_means},
    {"luspo", clipped, completion_totals}, {"vespo", vespo, by_mean_tokens},
};

const LossRow& row_of(const std::string& loss_type) {
  std::vector<std::string> names;
  for (const LossRow& row : kLosses) {
    if (loss_type == row.name) return row;
    names.push_back(row.name);
  }
  throw UserError("objective.loss_type = \"" + loss_type + "\": allowed for grpo: " + join(names));
}

// k3 (Schulman): exp(ref - log p) - (ref - log p) - 1, [n].
at::Tensor kl(const Terms& t) {
  const at::Tensor difference = t.tokens.reference_log_probs - t.tokens.log_probs;
  const at::Tensor estimate = difference.exp() - difference - 1;
  return t.options.use_bias_correction_kl ? estimate * t.to_tokens(t.ratio) : estimate;
}

// 1 where the entropy is among the micro-batch's highest `top_entropy_quantile` (Wang et al. 2025,
// arXiv:2506.01939), else 0.
at::Tensor high_entropy(const Terms& t) {
  const at::Tensor entropy = t.tokens.entropy.detach();
  if (entropy.numel() == 0) return at::zeros_like(entropy);
  const at::Tensor threshold = at::quantile(entropy, 1 - t.options.top_entropy_quantile);
  return (entropy >= threshold).to(at::kFloat);
}

// 0 for the tokens of completions with a negative advantage that the policy has moved away from
// (arXiv:2512.02556, eq. 9), else 1.
at::Tensor on_policy(const Terms& t, double threshold) {
  const at::Tensor moved = t.sums(-t.log_ratio.detach()) / t.lengths;
  return (t.tokens.advantages >= 0)
      .logical_or(moved <= threshold)
      .to(at::kFloat)
      .index_select(0, t.owner);
}

bool logs_clipping(const GrpoOptions& options) {
  return row_of(options.loss_type).per_token == clipped;
}

// The mean over tokens of what is at a ratio's level; over completions where that is the sequence.
LateMetric level_mean(const Terms& t, std::string name, const at::Tensor& x) {
  return {.name = std::move(name),
          .numerator = t.options.sequence_level ? x.to(at::kDouble).sum() : t.total(x),
          .denominator = static_cast<double>(x.numel())};
}

// The least or greatest mean of a completion; those without targets do not count.
LateMetric extreme(const Terms& t, std::string name, const at::Tensor& x, bool greatest) {
  at::Tensor means = x.to(at::kDouble);
  if (!t.options.sequence_level) {
    const at::Tensor with_targets = at::diff(t.tokens.ends).nonzero().squeeze(1);
    means = (t.sums(x) / t.lengths).index_select(0, sent_to(x.device(), with_targets));
  }
  if (means.numel() == 0) return {.name = std::move(name)};
  return {.name = std::move(name),
          .numerator = greatest ? means.max() : means.min(),
          .denominator = 1.0};
}

void add_clipping(const Terms& t, std::vector<LateMetric>& metrics) {
  const at::Tensor ratio = capped_ratio(t).detach();
  const at::Tensor low =
      (ratio < 1 - t.options.epsilon).logical_and(t.ratio_advantages < 0).to(at::kFloat);
  const at::Tensor high =
      (ratio > 1 + t.options.epsilon_high).logical_and(t.ratio_advantages > 0).to(at::kFloat);
  metrics.push_back(level_mean(t, "clip_ratio/low_mean", low));
  metrics.push_back(extreme(t, "clip_ratio/low_min", low, false));
  metrics.push_back(level_mean(t, "clip_ratio/high_mean", high));
  metrics.push_back(extreme(t, "clip_ratio/high_max", high, true));
  metrics.push_back(level_mean(t, "clip_ratio/region_mean", low + high));
}

constexpr const char* kClipping[] = {"clip_ratio/low_mean", "clip_ratio/low_min",
                                     "clip_ratio/high_mean", "clip_ratio/high_max",
                                     "clip_ratio/region_mean"};

}  // namespace

GrpoOptions grpo_options(const recipes::Objective& o) {
  GrpoOptions options;
  options.loss_type = name_of_one(o.loss_type, "dapo");
  row_of(options.loss_type);
  options.sequence_level = o.importance_sampling_level.value_or("token") == "sequence";
  options.beta = o.beta.value_or(options.beta);
  options.use_bias_correction_kl =
      o.use_bias_correction_kl.value_or(options.use_bias_correction_kl);
  options.epsilon = o.epsilon.value_or(options.epsilon);
  options.epsilon_high = o.epsilon_high.value_or(options.epsilon);
  options.delta = o.delta;
  options.sapo_temperature_pos = o.sapo_temperature_pos.value_or(options.sapo_temperature_pos);
  options.sapo_temperature_neg = o.sapo_temperature_neg.value_or(options.sapo_temperature_neg);
  options.vespo_k_pos = o.vespo_k_pos.value_or(options.vespo_k_pos);
  options.vespo_lambda_pos = o.vespo_lambda_pos.value_or(options.vespo_lambda_pos);
  options.vespo_k_neg = o.vespo_k_neg.value_or(options.vespo_k_neg);
  options.vespo_lambda_neg = o.vespo_lambda_neg.value_or(options.vespo_lambda_neg);
  options.top_entropy_quantile = o.top_entropy_quantile.value_or(options.top_entropy_quantile);
  options.off_policy_mask_threshold = o.off_policy_mask_threshold;
  options.entropy_bonus = o.use_adaptive_entropy.value_or(false) || o.entropy_coef.value_or(0) != 0;
  options.max_completion_length = o.max_completion_length.value_or(options.max_completion_length);
  return options;
}

std::vector<std::string> grpo_metric_names(const GrpoOptions& options) {
  std::vector<std::string> names = {"entropy"};
  if (options.entropy_bonus) names.insert(names.end(), {"policy_loss", "policy_entropy"});
  if (options.beta != 0) names.emplace_back("kl");
  if (logs_clipping(options)) names.insert(names.end(), std::begin(kClipping), std::end(kClipping));
  if (options.loss_type == "cispo") names.emplace_back("cispo_clip_ratio");
  if (options.loss_type == "vespo") names.emplace_back("vespo/phi_seq_mean");
  return names;
}

LossTerms grpo_loss(const PolicyTokens& tokens, const GrpoOptions& options) {
  const LossRow& row = row_of(options.loss_type);
  const Terms t = make_terms(tokens, options);
  at::Tensor loss = row.per_token(t);
  if (options.off_policy_mask_threshold) {
    loss = loss * on_policy(t, *options.off_policy_mask_threshold);
  }
  at::Tensor acted_on;  // [n]: the tokens with a policy gradient
  if (options.top_entropy_quantile < 1) {
    acted_on = high_entropy(t);
    loss = loss * acted_on;
  } else {
    acted_on = at::ones_like(t.advantages);
  }
  at::Tensor divergence;
  if (options.beta != 0) {
    divergence = kl(t);
    loss = loss + options.beta * divergence;
  }
  at::Tensor sum = row.summed(t, loss);

  const auto completions = static_cast<double>(t.completions);
  const auto count = static_cast<double>(tokens.log_probs.numel());
  LossTerms terms{.sum = {}, .count = completions, .metrics = {}};
  terms.metrics.push_back({"entropy", t.total(tokens.entropy.detach()), count});
  if (options.entropy_bonus) {
    const at::Tensor entropy = t.total(tokens.entropy * acted_on), of = t.total(acted_on);
    terms.metrics.push_back({"policy_loss", sum.detach(), completions});
    terms.metrics.push_back({"policy_entropy", entropy.detach(), of});
    sum = sum - tokens.entropy_coef * completions / of.clamp_min(1) * entropy;
  }
  terms.sum = sum.to(at::kFloat);
  if (options.beta != 0) terms.metrics.push_back({"kl", t.total(divergence.detach()), count});
  if (logs_clipping(options)) add_clipping(t, terms.metrics);
  if (options.loss_type == "cispo") {
    const at::Tensor over =
        (t.ratio.detach() > options.epsilon_high).logical_and(t.ratio_advantages > 0);
    terms.metrics.push_back(level_mean(t, "cispo_clip_ratio", over.to(at::kFloat)));
  }
  if (options.loss_type == "vespo") {
    terms.metrics.push_back(
        {"vespo/phi_seq_mean", vespo_weights(t).to(at::kDouble).sum(), completions});
  }
  return terms;
}

std::vector<std::string> rloo_metric_names() {
  std::vector<std::string> names = {"entropy"};
  names.insert(names.end(), std::begin(kClipping), std::end(kClipping));
  return names;
}

LossTerms rloo_loss(const PolicyTokens& tokens, double epsilon, double epsilon_high) {
  // The ratio of a whole completion, which is what a sequence-level ratio is but for the mean.
  GrpoOptions options;
  options.sequence_level = true;
  options.epsilon = epsilon;
  options.epsilon_high = epsilon_high;
  Terms t = make_terms(tokens, options);
  t.ratio = t.sums(t.log_ratio).to(at::kFloat).exp();
  const at::Tensor inside = t.ratio.clamp(1 - epsilon, 1 + epsilon_high);
  const at::Tensor losses = -at::minimum(t.ratio * tokens.advantages, inside * tokens.advantages);
  LossTerms terms{.sum = losses.to(at::kDouble).sum().to(at::kFloat),
                  .count = static_cast<double>(t.completions),
                  .metrics = {{"entropy", t.total(tokens.entropy.detach()),
                               static_cast<double>(tokens.entropy.numel())}}};
  add_clipping(t, terms.metrics);
  return terms;
}

std::vector<std::string> sampling_metric_names() {
  return {"sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max",
          "sampling/importance_sampling_ratio/min", "sampling/importance_sampling_ratio/mean",
          "sampling/importance_sampling_ratio/max"};
}

std::vector<LateMetric> sampling_metrics(const at::Tensor& old_log_probs,
                                         const at::Tensor& sampling_log_probs) {
  std::vector<LateMetric> metrics;
  for (std::string& name : sampling_metric_names()) metrics.push_back({.name = std::move(name)});
  const int64_t count = old_log_probs.numel();
  if (count == 0) return metrics;
  const at::Tensor difference = (old_log_probs - sampling_log_probs).to(at::kDouble);
  const at::Tensor ratio = difference.exp(), distance = difference.abs();
  const auto set = [&](size_t i, const at::Tensor& value, double denominator) {
    metrics[i].numerator = value;
    metrics[i].denominator = denominator;
  };
  set(0, total_of(distance), static_cast<double>(count));
  set(1, distance.max(), 1);
  set(2, ratio.min(), 1);
  set(3, total_of(ratio), static_cast<double>(count));
  set(4, ratio.max(), 1);
  return metrics;
}

}  // namespace temper::trainer
