#pragma once

#include <ATen/core/Tensor.h>

/// KTO (Ethayarajh et al. 2024, arXiv:2402.01306, eq. 7) and APO-zero unpaired (D'Oosterlinck et al.
/// 2024, arXiv:2408.06266, eq. 7), as pure functions of B completions that are each desirable or not.
namespace temper::trainer {

struct KtoOptions {
  bool apo_zero_unpaired = false;
  double beta = 0.1;
  double desirable_weight = 1.0;
  double undesirable_weight = 1.0;
};

/// With x the log-probability of each completion, policy minus reference, [B] float32, and
/// `desirable` [B] bool:
///     kto:               w_d (1 - sigmoid(beta (x - kl))),  w_u (1 - sigmoid(beta (kl - x)))
///     apo_zero_unpaired: w_d (1 - sigmoid(beta x)),         w_u sigmoid(beta x)
/// Per completion, [B].
at::Tensor kto_loss(const at::Tensor& log_ratios, const at::Tensor& desirable, double kl,
                    const KtoOptions& options);

}  // namespace temper::trainer
