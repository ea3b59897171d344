#pragma once

#include <utility>

#include <ATen/core/Tensor.h>

/// LayerNorm (Ba et al. 2016, arXiv:1607.06450):
///     y = (x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight + bias
/// over the last dim; means and products in float32, one rounding. The gradients of `weight` and
/// `bias` are added to their float32 `.grad` (gradient.h) in a fixed order.
namespace temper::trainer {

/// For the residual stream, as rms_norm(): returns {x, y}, and whoever uses the first gives its
/// gradient to this operator's backward. x [..., D], weight and bias [D].
std::pair<at::Tensor, at::Tensor> layer_norm(const at::Tensor& x, const at::Tensor& weight,
                                             const at::Tensor& bias, double eps);

/// y alone, outside autograd: what a saved x gives again.
at::Tensor layer_norm_again(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            double eps);

}  // namespace temper::trainer
