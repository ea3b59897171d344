#pragma once

#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// Rows of a frozen matrix that are trained by themselves and take the place of its own: the tokens
/// of PEFT's trainable_token_indices.
struct TrainedRows {
  at::Tensor ids;     // [n] int64, which rows
  at::Tensor values;  // leaf [n, D], whole rows and not differences
};

/// Token ids to vectors.
struct Embedding {
  at::Tensor weight;                        // leaf [V, D]
  std::shared_ptr<const TrainedRows> rows;  // null: none
  /// What an adapter makes of the rows [M, D] that the ids [M] have found; empty: nothing.
  std::function<at::Tensor(const at::Tensor& ids, const at::Tensor& found)> adapted;
};

/// Vectors of `token_ids` [M] int64: [M, D]. Backward adds to the float32 `.grad` of the weight and
/// of trained rows in the order of the tokens. Ids must be below V (the data is checked against the
/// vocabulary before).
at::Tensor embed(const at::Tensor& token_ids, const Embedding& embedding);

}  // namespace temper::trainer
