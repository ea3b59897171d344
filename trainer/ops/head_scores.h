#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/ops/head_cross_entropy.h"

namespace temper::trainer {

/// A head's outputs at single positions: hidden [..., D], positions [C] int64 into the flattened
/// hidden states, on the host; returns [C, V] float32 where hidden is, differentiable. Gradients of
/// the head's leaves are added in place (gradient.h).
at::Tensor head_scores(const at::Tensor& hidden, const OutputHead& head,
                       const at::Tensor& positions);

}  // namespace temper::trainer
