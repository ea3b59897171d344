#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "trainer/ops/embedding.h"
#include "trainer/ops/low_rank.h"

namespace temper::trainer {

/// Vectors to logits: x W^T, with trained rows in place of W's own or LoRA added; at most one of the
/// two.
struct OutputHead {
  at::Tensor weight;  // leaf [V, D]
  std::shared_ptr<const TrainedRows> rows{};
  std::shared_ptr<const LowRank> low_rank{};  // of one part
};

/// Logits [M, V] float32 of hidden [M, D]; no gradient.
at::Tensor head_logits(const at::Tensor& hidden, const OutputHead& head);

/// What each supervised token adds to the loss, with p the softmax probability of its label:
/// kNll: -log p.  kDft: -p log p with the factor p held constant (Wu et al. 2025,
/// arXiv:2508.05629).
enum class TokenLoss { kNll, kDft };

struct HeadLoss {
  at::Tensor sum;      // [] float32 on the host, over supervised tokens
  double correct = 0;  // supervised tokens whose label is the most probable one
  double entropy = 0;  // sum of -sum_v p_v log p_v, nats
};

/// Output projection and cross-entropy in one, over the tokens whose label is not -100: logits
/// exist only for a chunk of tokens at a time. hidden [..., D], labels [...] int64 on the host.
///
/// With gradients enabled the gradients are computed on the way: those of the head are added to the
/// float32 `.grad` of its leaves (gradient.h) in this very call, that of hidden is kept. So `sum` must be
/// differentiated once, with gradient LossGradient::value() (checked on the CPU), and a call whose sum is never differentiated
/// must be made in no-grad mode, where only values are computed.
HeadLoss head_cross_entropy(const at::Tensor& hidden, const OutputHead& head,
                            const at::Tensor& labels, TokenLoss kind);

}  // namespace temper::trainer
