#pragma once

#include <functional>
#include <vector>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// Projections that read the same input (q, k, v; gate, up), stored one under the other so that one
/// product computes them all; each is also a parameter of its own, a view of its rows.
struct Projection {
  at::Tensor weight;                // [N, D], no gradient
  at::Tensor bias;                  // [N] or undefined
  std::vector<at::Tensor> weights;  // leaves: views of consecutive rows of `weight`
  std::vector<at::Tensor> biases;   // the same of `bias`; empty when there is none
};

/// x W^T + b (+ residual). x [..., D] contiguous, returns [..., N].
///
/// Backward adds dy^T x to the float32 `.grad` of every weight that requires a gradient
/// (gradient.h), on top of what earlier micro-batches left there, and returns undefined gradients
/// for them; the gradient of `residual` is dy itself. `x_again`: gives x once more from tensors
/// that are saved anyway; then x itself is not kept for backward.
at::Tensor linear(const at::Tensor& x, const Projection& projection,
                  const at::Tensor& residual = {}, std::function<at::Tensor()> x_again = {});

}  // namespace temper::trainer
