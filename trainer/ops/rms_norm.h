#pragma once

#include <utility>

#include <ATen/core/Tensor.h>

/// RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467):  y = x / sqrt(mean(x^2) + eps) * weight,
/// over the last dim; the mean and the products in float32, one rounding. The gradient of `weight`
/// is added to its float32 `.grad` (gradient.h) in a fixed order.
namespace temper::trainer {

/// For the residual stream: returns {x, y}. The first is x itself; whoever uses it instead of x
/// gives its gradient to this operator, whose backward then is one pass: dx = d_first + norm'(dy).
/// x [..., D], weight [D].
std::pair<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x, const at::Tensor& weight,
                                           double eps);

/// y alone, outside autograd: what a saved x gives again.
at::Tensor rms_norm_again(const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace temper::trainer
