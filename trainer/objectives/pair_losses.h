#pragma once

#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

/// Losses over pairs without a reference, as pure functions. Every tensor is [B] float32; results
/// are per pair.
namespace temper::trainer {

/// CPO (Xu et al. 2024, arXiv:2401.08417) and SimPO (Meng et al. 2024, arXiv:2405.14734) without
/// their likelihood term.
struct CpoOptions {
  std::string loss_type = "sigmoid";  // | hinge | ipo | simpo
  double beta = 0.1;
  double label_smoothing = 0;
  double simpo_gamma = 0.5;
  double alpha = 0;  // AlphaPO (Gupta et al. 2025, arXiv:2501.03884); 0: off
  bool mean_log_probs() const { return loss_type == "ipo" || loss_type == "simpo"; }
};

/// What a completion is worth by its log-probability x: x, or of AlphaPO (1 - exp(-alpha x)) / alpha.
at::Tensor cpo_reward(const at::Tensor& log_probs, const CpoOptions& options);

/// With x the difference of the rewards, S = log sigmoid and e = label_smoothing:
///     sigmoid: -(1 - e) S(beta x) - e S(-beta x);  simpo: the same of x - simpo_gamma / beta
///     hinge: max(0, 1 - beta x);  ipo: (x - 1 / (2 beta))^2
/// x are sums over a completion's tokens, of ipo and simpo their means.
at::Tensor cpo_loss(const at::Tensor& chosen_rewards, const at::Tensor& rejected_rewards,
                    const CpoOptions& options);

/// ORPO's log odds (Hong et al. 2024, arXiv:2403.07691, eq. 4 and 7), from mean log-probabilities a
/// token c and r:  o = (c - r) - (log(1 - e^c) - log(1 - e^r)); its loss is -beta log sigmoid(o).
at::Tensor log_odds(const at::Tensor& chosen, const at::Tensor& rejected);

/// A reward model's loss (Ouyang et al. 2022, arXiv:2203.02155) of two scores and, where there is
/// one, the margin by which the chosen one should be ahead (Touvron et al. 2023, arXiv:2307.09288):
///     -S(r_c - r_r - margin) + coefficient (r_c + r_r)^2
/// with the centering of Eisenstein et al. 2023, arXiv:2312.09244.
at::Tensor reward_loss(const at::Tensor& chosen, const at::Tensor& rejected,
                       const std::optional<at::Tensor>& margin, double center_coefficient);

}  // namespace temper::trainer
