#pragma once

#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "recipes/recipe.h"
#include "trainer/objectives/objective.h"

/// Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) with a value for each token,
/// as TRL 1.10's PPOTrainer computes it. Legend: C completions, n tokens in all, grouped by
/// completion; float32.
namespace temper::trainer {

/// TRL's names.
struct PpoOptions {
  double gamma = 1.0, lam = 0.95;
  double cliprange = 0.2, cliprange_value = 0.2;
  double vf_coef = 0.1;
  double kl_coef = 0.05;
  bool whiten_rewards = false;
  std::optional<double> missing_eos_penalty{};
};
PpoOptions ppo_options(const recipes::Objective& objective);

/// Generalised advantage estimation (Schulman et al. 2015, arXiv:1506.02438), [n], over the tokens t
/// of each completion, whose value after the last one is 0:
///
///     delta_t = r_t + gamma V_{t+1} - V_t        A_t = delta_t + gamma lam A_{t+1}
///
/// rewards, values [n]; ends [C + 1] int64, as in data::Targets.
at::Tensor generalized_advantages(const at::Tensor& rewards, const at::Tensor& values,
                                  const at::Tensor& ends, double gamma, double lam);

enum class Mean { kRemoved, kKept };
/// (x - mean) / sqrt(var + 1e-8), var with n - 1; with kKept the mean is added again. Fewer than two
/// numbers have the variance 0.
at::Tensor whitened(const at::Tensor& x, Mean mean);

/// Completions as they were sampled and scored.
struct ScoredTokens {
  at::Tensor log_probs;            // [n] of the policy that sampled
  at::Tensor reference_log_probs;  // [n]; undefined where kl_coef is 0
  at::Tensor values;               // [n] of what stands in front of the token
  at::Tensor ends;                 // [C + 1] int64
  at::Tensor scores;               // [C]; NaN: none
};

struct PpoTargets {
  at::Tensor advantages, returns;  // [n]
};

/// What the losses learn from:
///
///     r_t = -kl_coef (log p_t - log p_ref,t), the score added at a completion's last token;
///     whitened, mean kept, with whiten_rewards
///     A = generalised advantages of r       R = A + V       A whitened over all n tokens
///
/// A completion without a score teaches nothing: A = 0, R = V, and it is in no mean.
PpoTargets ppo_targets(const ScoredTokens& tokens, const PpoOptions& options);

/// What a loss sees of the completions of one micro-batch, all of it where the model is.
struct PpoTokens {
  at::Tensor log_probs;      // [n] of the policy, differentiable
  at::Tensor values;         // [n] differentiable
  at::Tensor entropy;        // [n]
  at::Tensor old_log_probs;  // [n]
  at::Tensor old_values;     // [n]
  at::Tensor advantages;     // [n]
  at::Tensor returns;        // [n]
};

/// Per token, with q = exp(log p - log p_old), c = cliprange, d = cliprange_value:
///
///     max(-A q, -A clip(q, 1 - c, 1 + c)) + vf_coef / 2 max((V - R)^2, (clip(V, V_old - d, V_old + d) - R)^2)
///
/// added up; the count is n. Metrics: ppo_metric_names().
LossTerms ppo_loss(const PpoTokens& tokens, const PpoOptions& options);
std::vector<std::string> ppo_metric_names();

}  // namespace temper::trainer
