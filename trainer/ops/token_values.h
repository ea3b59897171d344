#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// One number for each of n positions: x w^T + b, [n] float32 where hidden is, differentiable.
/// hidden [..., D]; weight [1, D] and bias [1], float32 leaves whose gradients are added in place
/// (gradient.h); positions [n] int64 into the flattened hidden states, on the host. Sums are in an
/// order independent of threads.
at::Tensor token_values(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& positions);

}  // namespace temper::trainer
