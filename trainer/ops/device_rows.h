#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// What rows of logits on a device say of their labels: [n] float32 each.
struct LabelRows {
  at::Tensor log_prob, entropy, log_sum_exp, mean, correct;
};

/// logits [n, V] float32, their rows apart or not, labels [n] int64, on one device.
LabelRows label_rows(const at::Tensor& logits, const at::Tensor& labels);

/// out [n, V] = d log p[label] / d logits * dlog_prob + d entropy / d logits * dentropy.
/// log_sum_exp, dlog_prob, entropy and dentropy [n] float32 on the device; the last two may both be
/// undefined. A float32 out may be logits itself; rows of both may be apart.
struct LabelGradient {
  at::Tensor log_sum_exp, dlog_prob, entropy{}, dentropy{};
};
void label_gradient(const at::Tensor& logits, const at::Tensor& labels,
                    const LabelGradient& gradient, const at::Tensor& out);

}  // namespace temper::trainer
