#pragma once

#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {

/// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) as torch.optim.AdamW: decoupled weight
/// decay, bias correction.
///     m = b1 m + (1 - b1) g        v = b2 v + (1 - b2) g^2
///     w = w (1 - lr wd) - lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
std::unique_ptr<Optimizer> build_adamw(const recipes::Optimizer& optimizer,
                                       const std::vector<Parameter>& parameters);

}  // namespace temper::trainer
