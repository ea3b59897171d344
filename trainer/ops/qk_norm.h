#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// RMSNorm (rms_norm.h) over each of the first `q_heads` heads of qkv (with q_weight [head_dim])
/// and of the next `k_heads` (k_weight); the rest is copied.
at::Tensor qk_norm(const at::Tensor& qkv, const at::Tensor& q_weight, const at::Tensor& k_weight,
                   int64_t q_heads, int64_t k_heads, double eps);

}  // namespace temper::trainer
