#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// What each supervised token adds to the loss, with p the softmax probability of its label:
/// kNll: -log p.  kDft: -p log p with the factor p held constant (Wu et al. 2025,
/// arXiv:2508.05629).
enum class TokenLoss { kNll, kDft };

struct HeadLoss {
  at::Tensor sum;      // [] float32, over supervised tokens
  double correct = 0;  // supervised tokens whose label is the most probable one
  double entropy = 0;  // sum of -sum_v p_v log p_v, nats
};

/// Output projection and cross-entropy in one, over the tokens whose label is not -100: logits
/// exist only for a chunk of tokens at a time. hidden [..., D], weight [V, D], labels [...] int64.
///
/// With gradients enabled the gradients are computed on the way: that of `weight` is added to its
/// float32 `.grad` (gradient.h) in this very call, that of hidden is kept. So `sum` must be
/// differentiated once, with gradient one (checked), and a call whose sum is never differentiated
/// must be made in no-grad mode, where only values are computed.
HeadLoss head_cross_entropy(const at::Tensor& hidden, const at::Tensor& weight,
                            const at::Tensor& labels, TokenLoss kind);

}  // namespace temper::trainer
