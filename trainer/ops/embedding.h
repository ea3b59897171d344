#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// Rows of `weight` [V, D] for `token_ids` [...] int64; returns [..., D]. Backward adds to the
/// weight's float32 `.grad` in the order of the tokens. Ids must be below V (the data is checked
/// against the vocabulary before).
at::Tensor embed(const at::Tensor& token_ids, const at::Tensor& weight);

}  // namespace temper::trainer
