#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/ops/head_cross_entropy.h"

namespace temper::trainer {

/// Per target, n of them; all float32, where hidden is.
struct TokenLogProbs {
  at::Tensor log_probs;    // [n] log p of the label; differentiable
  at::Tensor entropy;      // [n] -sum_v p_v log p_v, nats; differentiable where asked for
  at::Tensor mean_logits;  // [n] mean over the vocabulary, before the temperature; no gradient
  at::Tensor correct;      // [n] 1 where the label is the most probable token; no gradient
  at::Tensor log_sum_squares{};  // [n] log sum_v p_v^2, where asked for; no gradient
};

struct LogProbOptions {
  double temperature = 1.0;        // logits are divided by it
  bool entropy_gradient = false;
  bool sum_of_squares = false;
};

/// Output projection and log-probabilities in one: logits exist only for a chunk of targets at a
/// time, and are computed again in backward, which is where the loss's gradient is first known.
/// hidden [..., D]; positions [n] int64, which of the flattened hidden states predicts target i (one
/// may predict several); labels [n] int64; both on the host. Gradients of the head's leaves are added in place
/// (gradient.h). Sums are in an order independent of threads. A device is not waited for, neither here nor in backward.
TokenLogProbs token_log_probs(const at::Tensor& hidden, const OutputHead& head,
                              const at::Tensor& positions, const at::Tensor& labels,
                              const LogProbOptions& options = {});

}  // namespace temper::trainer
