#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

/// LoRA (Hu et al. 2021, arXiv:2106.09685) of the parts of one projection, as ops/linear.h computes
/// it in the projection's own autograd node: y_p = x W_p^T + scale_p (x A_p^T) B_p^T.
namespace temper::trainer {

/// What changes from one forward pass to the next. One object a model, shared by its adapters.
struct AdapterContext {
  bool training = false;  // dropout acts
  uint64_t seed = 0;      // of this micro-batch: a mask depends on it and on the layer, not on ranks
  bool enabled = true;    // false: the base model alone (the reference model of DPO and GRPO)
};

struct LowRankPart {
  size_t part = 0;     // of the projection
  std::string module;  // names the dropout mask
  at::Tensor a;        // leaf [R, D], rows of LowRank::a
  at::Tensor b;        // leaf [N, R]
  at::Tensor bias;     // leaf [N] or undefined: added as scale x bias
  double scale = 1;
};

struct LowRank {
  at::Tensor a;  // the parts' A, one under the other: one product with x computes them all
  std::vector<LowRankPart> parts;
  double dropout = 0;
  std::shared_ptr<const AdapterContext> context;

  bool drops() const { return dropout > 0 && context->training; }
};

/// x with each element zero with probability p, else x / (1 - p); the mask depends on context.seed,
/// `module` and the element's place alone and is drawn again in backward. x itself when p is 0 or
/// context.training is false.
at::Tensor adapter_dropout(const at::Tensor& x, double p, const std::string& module,
                           const AdapterContext& context);

/// The same without a gradient, from the mask's own seed.
uint64_t dropout_seed(const std::string& module, const AdapterContext& context);
at::Tensor masked(const at::Tensor& x, double p, uint64_t seed);

}  // namespace temper::trainer
