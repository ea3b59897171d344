#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/ops/float8.h"
#include "trainer/ops/low_rank.h"
#include "trainer/ops/quantized.h"

namespace temper::trainer {

struct Projection;

/// One part of a projection as adapters see it: y = x W^T + b.
struct BaseLinear {
  std::function<at::Tensor(const at::Tensor& x)> product;  // x W^T [M, N], differentiable in x
  std::function<at::Tensor()> weight;  // W [N, D] in the compute type, dequantised, no gradient
  at::Tensor bias;                     // b [N]; undefined when there is none
};

/// An adapted part: its output [M, N], bias included, from x [M, D].
using AdaptedPart = std::function<at::Tensor(const at::Tensor& x, const BaseLinear& base)>;

/// Projections that read the same input (q, k, v; gate, up), stored one under the other so that one
/// product computes them all; each is also a parameter of its own, a view of its rows.
struct Projection {
  at::Tensor weight;                       // [N, D], no gradient; undefined when quantised
  at::Tensor bias;                         // [N] or undefined
  std::vector<int64_t> rows;               // of each part
  std::vector<at::Tensor> weights;         // leaves: views of consecutive rows of `weight`
  std::vector<at::Tensor> biases;          // the same of `bias`; empty when there is none
  std::vector<QuantizedMatrix> quantized;  // a part each, instead of `weight`
  std::optional<Float8Scaling> float8;  // of a part whose sizes fit (takes_float8); not quantised
  std::shared_ptr<const LowRank> low_rank;
  std::vector<AdaptedPart> adapted;  // empty, or a part each; an empty function: not adapted

  /// [N, D] of part `index` in `dtype`, dequantised where it must be; no gradient.
  at::Tensor part_weight(size_t index, at::ScalarType dtype) const;
};

/// x W^T + b (+ residual), adapters included. x [..., D] contiguous, returns [..., N].
///
/// Backward adds dy^T x to the float32 `.grad` of every weight that requires a gradient
/// (gradient.h), on top of what earlier micro-batches left there, and returns undefined gradients
/// for them; the gradient of `residual` is dy itself. `x_again`: gives x once more from tensors
/// that are saved anyway; then x itself is not kept for backward. LoRA runs in the same node: x is
/// kept once for all parts, and y is rounded once.
///
/// Where `float8` is set, each part is a linear layer as float8.h has it, with scales of its own, in
/// forward and backward; x is kept as it is, LoRA's products stay in x's type. y is then rounded
/// once a term.
at::Tensor linear(const at::Tensor& x, const Projection& projection,
                  const at::Tensor& residual = {}, std::function<at::Tensor()> x_again = {});

/// While one lives on this thread, linear() without gradients takes the path that it takes with
/// them: few rows on quantised weights, which are multiplied without a dequantised copy otherwise,
/// then have the bits that they have among many.
class TrainingProducts {
 public:
  explicit TrainingProducts(bool on);
  ~TrainingProducts();
  TrainingProducts(const TrainingProducts&) = delete;
  TrainingProducts& operator=(const TrainingProducts&) = delete;

 private:
  bool before_;
};

}  // namespace temper::trainer
