#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// Angles of the tokens of a batch: cos and sin [N, rot / 2] float32, attention scaling included.
struct RopeAngles {
  at::Tensor cos, sin;
};

/// Rotary position embedding (Su et al. 2021, arXiv:2104.09864) of the first `heads` heads in each
/// row of qkv [N, (heads + rest) * head_dim], in place (queries and keys at once; values are the
/// rest): (a, b) -> (a cos - b sin, b cos + a sin) for the two halves of the rotated dims. The
/// result must be used by one operator that makes its gradient anew (attention): backward turns
/// that gradient back in place.
at::Tensor rope(const at::Tensor& qkv, const RopeAngles& angles, int64_t heads, int64_t head_dim);

}  // namespace temper::trainer
