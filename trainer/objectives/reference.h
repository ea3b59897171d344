#pragma once

#include <ATen/core/Tensor.h>

namespace temper::data {
struct Batch;
}

namespace temper::trainer {

/// The policy that a loss compares the trained one with: the start weights.
class Reference {
 public:
  virtual ~Reference() = default;
  /// Log-probabilities of the batch's targets, [n] float32, of logits divided by `temperature`; no
  /// gradient.
  virtual at::Tensor log_probs(const data::Batch& batch, double temperature) = 0;
};

}  // namespace temper::trainer
