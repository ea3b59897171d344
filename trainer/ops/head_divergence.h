#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/ops/head_cross_entropy.h"

namespace temper::trainer {

/// The generalised Jensen-Shannon divergence of two distributions of the next token, S of a student
/// and T of a teacher (Agarwal et al. 2024, arXiv:2306.13649, eq. 1), nats:
///
///     beta 0: KL(T || S);  beta 1: KL(S || T);
///     between: beta KL(T || M) + (1 - beta) KL(S || M), M = beta T + (1 - beta) S
///
/// Both logits are divided by `temperature`, and the divergence is not multiplied by its square.
struct DivergenceOptions {
  double beta = 0.5;
  double temperature = 1.0;
};

struct HeadDivergence {
  at::Tensor sum;      // [] float32 on the host, over the targets
  double entropy = 0;  // of S: sum of -sum_v S_v log S_v, nats
  double correct = 0;  // targets whose label is S's most probable token
};

/// Output projections of both models and the divergence in one: logits exist only for a chunk of
/// targets at a time. hidden [..., D] and teacher_hidden [..., D'] of the same tokens, with one
/// vocabulary; positions [n] int64, which of the flattened hidden states predicts target i, none of
/// them twice; labels [n] int64. The teacher gets no gradient.
///
/// Gradients are computed on the way, as head_cross_entropy does: `sum` must be differentiated once,
/// with gradient LossGradient::value() (checked on the CPU), and a call whose sum is never differentiated must be made in no-grad
/// mode, where only values are computed.
HeadDivergence head_divergence(const at::Tensor& hidden, const OutputHead& head,
                               const at::Tensor& teacher_hidden, const OutputHead& teacher_head,
                               const at::Tensor& positions, const at::Tensor& labels,
                               const DivergenceOptions& options);

}  // namespace temper::trainer
