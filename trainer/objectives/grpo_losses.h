#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "recipes/recipe.h"
#include "trainer/objectives/objective.h"

/// The losses of group-relative policy optimisation, as TRL 1.16.0 computes them, of the
/// completions of one micro-batch. Legend: C completions, n targets in all, grouped by completion.
namespace temper::trainer {

/// What a loss sees of C completions; all float32, where the model is but for `ends`.
struct PolicyTokens {
  at::Tensor log_probs;            // [n] of the policy, differentiable
  at::Tensor entropy;              // [n] differentiable where entropy_coef is not 0
  at::Tensor old_log_probs;        // [n] undefined: log_probs, held constant
  at::Tensor reference_log_probs;  // [n] where beta is not 0
  at::Tensor ends;                 // [C + 1] int64, as in data::Targets
  at::Tensor advantages;           // [C]
  double mean_tokens = 1;          // data::Rollout
  double entropy_coef = 0;
};

/// TRL's names.
struct GrpoOptions {
  std::string loss_type = "dapo";
  bool sequence_level = false;  // importance_sampling_level = "sequence"
  double beta = 0;
  bool use_bias_correction_kl = true;
  double epsilon = 0.2, epsilon_high = 0.2;
  std::optional<double> delta{};
  double sapo_temperature_pos = 1.0, sapo_temperature_neg = 1.05;
  double vespo_k_pos = 2, vespo_lambda_pos = 3, vespo_k_neg = 3, vespo_lambda_neg = 2;
  double top_entropy_quantile = 1.0;
  std::optional<double> off_policy_mask_threshold{};
  bool entropy_bonus = false;  // entropy_coef is, or may become, other than 0
  int64_t max_completion_length = 512;
};
/// Throws UserError for a loss_type that is not there.
GrpoOptions grpo_options(const recipes::Objective& objective);

/// Per token, with r = exp(log p - log p_old), of the token or (sequence_level; GSPO, Zheng et al.
/// 2025, arXiv:2507.18071) exp of the completion's mean, A the advantage, KL the estimate k3
/// against the reference, times r with use_bias_correction_kl (arXiv:2512.02556):
///
///     clipped  -min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilon_high) A)     + beta KL
///     cispo    -stop(min(r, epsilon_high)) A log p    (MiniMax 2025, arXiv:2506.13585)
///     sapo     -4 sigmoid(t (r - 1)) / t A, t by the sign of A       (arXiv:2511.20347)
///     vespo    -phi(w) A log p, phi(w) = e^l w^k e^(-l w), w = the completion's product of r,
///              held constant                                         (arXiv:2602.10693)
///
/// and over tokens:
///
///     grpo, sapo          mean over completions of the mean over its tokens   (arXiv:2402.03300)
///     bnpo                mean over the micro-batch's tokens
///     dr_grpo             sum / (completions x max_completion_length)         (arXiv:2503.20783)
///     dapo, cispo, vespo  sum / tokens of the generation batch                (arXiv:2503.14476)
///     luspo               mean over completions of the sum over its tokens    (arXiv:2602.05261)
///
/// The result's count is C, and its sum so that sum / count over all micro-batches and ranks is
/// TRL's loss: bnpo, the entropy bonus and top_entropy_quantile depend on how a batch is cut, as
/// there.
LossTerms grpo_loss(const PolicyTokens& tokens, const GrpoOptions& options);
/// The names of grpo_loss()'s metrics, in its order.
std::vector<std::string> grpo_metric_names(const GrpoOptions& options);

/// -min(R A, clip(R, 1 - epsilon, 1 + epsilon_high) A) a completion, R the product of its tokens'
/// ratios (Ahmadian et al. 2024, arXiv:2402.14740). Metrics: rloo_metric_names().
LossTerms rloo_loss(const PolicyTokens& tokens, double epsilon, double epsilon_high);
std::vector<std::string> rloo_metric_names();

/// sampling/sampling_logp_difference/{mean,max} and
/// sampling/importance_sampling_ratio/{min,mean,max}: per token, of the training pass against the
/// sampler; the ratio is 1 where both compute alike. Both arguments are on one device.
std::vector<LateMetric> sampling_metrics(const at::Tensor& old_log_probs,
                                         const at::Tensor& sampling_log_probs);
std::vector<std::string> sampling_metric_names();

}  // namespace temper::trainer
