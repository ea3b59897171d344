#include "trainer/objectives/ppo_losses.h"

#include <cmath>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/objectives/completions.h"

namespace temper::trainer {
namespace {

// Tokens of completions that have a score, [n] bool.
at::Tensor scored(const ScoredTokens& tokens) {
  return tokens.scores.isnan().logical_not().repeat_interleave(at::diff(tokens.ends));
}

// x where `chosen` is true is whitened, else left as it is.
at::Tensor whitened_among(const at::Tensor& x, const at::Tensor& chosen, Mean mean) {
  return x.masked_scatter(chosen, whitened(x.masked_select(chosen), mean));
}

at::Tensor token_rewards(const ScoredTokens& tokens, const PpoOptions& options) {
  at::Tensor rewards = at::zeros_like(tokens.log_probs);
  if (options.kl_coef != 0) {
    rewards -= options.kl_coef * (tokens.log_probs - tokens.reference_log_probs);
  }
  const float* score = tokens.scores.const_data_ptr<float>();
  const int64_t* end = tokens.ends.const_data_ptr<int64_t>();
  float* reward = rewards.mutable_data_ptr<float>();
  for (int64_t c = 0; c < tokens.scores.numel(); ++c) {
    if (end[c + 1] > end[c] && !std::isnan(score[c])) reward[end[c + 1] - 1] += score[c];
  }
  return rewards;
}

}  // namespace

PpoOptions ppo_options(const recipes::Objective& o) {
  PpoOptions options;
  options.gamma = o.gamma.value_or(options.gamma);
  options.lam = o.lam.value_or(options.lam);
  options.cliprange = o.cliprange.value_or(options.cliprange);
  options.cliprange_value = o.cliprange_value.value_or(options.cliprange_value);
  options.vf_coef = o.vf_coef.value_or(options.vf_coef);
  options.kl_coef = o.kl_coef.value_or(options.kl_coef);
  options.whiten_rewards = o.whiten_rewards.value_or(options.whiten_rewards);
  options.missing_eos_penalty = o.missing_eos_penalty;
  return options;
}

at::Tensor generalized_advantages(const at::Tensor& rewards, const at::Tensor& values,
                                  const at::Tensor& ends, double gamma, double lam) {
  at::Tensor advantages = at::empty_like(rewards);
  const float *r = rewards.const_data_ptr<float>(), *v = values.const_data_ptr<float>();
  const int64_t* end = ends.const_data_ptr<int64_t>();
  float* a = advantages.mutable_data_ptr<float>();
  for (int64_t c = 0; c + 1 < ends.numel(); ++c) {
    double next_value = 0, next_advantage = 0;
    for (int64_t t = end[c + 1] - 1; t >= end[c]; --t) {
      const double delta = r[t] + gamma * next_value - v[t];
      next_advantage = delta + gamma * lam * next_advantage;
      next_value = v[t];
      a[t] = static_cast<float>(next_advantage);
    }
  }
  return advantages;
}

at::Tensor whitened(const at::Tensor& x, Mean mean) {
  const auto count = static_cast<double>(x.numel());
  if (x.numel() == 0) return x;
  const double center = total_of(x).item<double>() / count;
  const at::Tensor around = x.to(at::kDouble) - center;
  double squares = 0;
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double apart = around.const_data_ptr<double>()[i];
    squares += apart * apart;
  }
  const double variance = count > 1 ? squares / (count - 1) : 0;
  const at::Tensor scaled = around / std::sqrt(variance + 1e-8);
  return (mean == Mean::kKept ? scaled + center : scaled).to(x.scalar_type());
}

PpoTargets ppo_targets(const ScoredTokens& tokens, const PpoOptions& options) {
  TEMPER_CHECK(tokens.ends.numel() == tokens.scores.numel() + 1, "a score for each completion");
  const at::Tensor taught = scored(tokens);
  at::Tensor rewards = token_rewards(tokens, options);
  if (options.whiten_rewards) rewards = whitened_among(rewards, taught, Mean::kKept);
  const at::Tensor advantages =
      generalized_advantages(rewards, tokens.values, tokens.ends, options.gamma, options.lam) *
      taught;
  return {.advantages = whitened_among(advantages, taught, Mean::kRemoved),
          .returns = advantages + tokens.values};
}

LossTerms ppo_loss(const PpoTokens& tokens, const PpoOptions& options) {
  const double c = options.cliprange, d = options.cliprange_value;
  const at::Tensor log_ratio = tokens.log_probs - tokens.old_log_probs;
  const at::Tensor ratio = log_ratio.exp();
  const at::Tensor free = -tokens.advantages * ratio;
  const at::Tensor clipped = -tokens.advantages * ratio.clamp(1 - c, 1 + c);
  const at::Tensor policy_loss = total_of(at::maximum(free, clipped)).to(at::kFloat);

  const at::Tensor near = tokens.values.clamp(tokens.old_values - d, tokens.old_values + d);
  const at::Tensor error = (tokens.values - tokens.returns).square();
  const at::Tensor near_error = (near - tokens.returns).square();
  const at::Tensor value_loss = 0.5 * total_of(at::maximum(error, near_error)).to(at::kFloat);

  const auto count = static_cast<double>(tokens.log_probs.numel());
  const auto mean = [&](const char* name, const at::Tensor& each) {
    return LateMetric{name, total_of(each.detach()), count};
  };
  return {.sum = policy_loss + options.vf_coef * value_loss,
          .count = count,
          .metrics = {{"loss/policy_avg", policy_loss.detach().to(at::kDouble), count},
                      {"loss/value_avg", value_loss.detach().to(at::kDouble), count},
                      mean("policy/approxkl_avg", 0.5 * log_ratio.square()),
                      mean("policy/clipfrac_avg", clipped > free),
                      mean("policy/entropy_avg", tokens.entropy),
                      mean("val/clipfrac_avg", near_error > error),
                      mean("val/ratio", ratio)}};
}

std::vector<std::string> ppo_metric_names() {
  return {"loss/policy_avg",     "loss/value_avg",     "policy/approxkl_avg",
          "policy/clipfrac_avg", "policy/entropy_avg", "val/clipfrac_avg",
          "val/ratio"};
}

}  // namespace temper::trainer
