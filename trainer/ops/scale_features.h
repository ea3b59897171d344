#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// x [M, D] with feature j times element j of `scale`, a leaf of D elements in any shape, float32
/// or in x's type; rounded to x's type. Backward adds the sum over rows of dy x, rows in order, to
/// the float32 `.grad` of `scale` (gradient.h) and returns an undefined gradient for it.
at::Tensor scale_features(const at::Tensor& x, const at::Tensor& scale);

}  // namespace temper::trainer
