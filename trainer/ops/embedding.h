#pragma once

#include <memory>

#include <ATen/core/Tensor.h>

#include "trainer/ops/low_rank.h"

namespace temper::trainer {

/// Rows of a frozen matrix that are trained by themselves and take the place of its own: the tokens
/// of PEFT's trainable_token_indices.
struct TrainedRows {
  at::Tensor ids;     // [n] int64, which rows
  at::Tensor values;  // leaf [n, D], whole rows and not differences
  std::shared_ptr<const AdapterContext> context;
};

/// LoRA of an embedding (Hu et al. 2021, arXiv:2106.09685): row i is W_i + scale (A_:,i)^T B^T. No
/// dropout (PEFT).
struct LowRankRows {
  at::Tensor a;  // leaf [R, V]
  at::Tensor b;  // leaf [D, R]
  double scale = 1;
  std::shared_ptr<const AdapterContext> context;
};

/// Token ids to vectors.
struct Embedding {
  at::Tensor weight;                            // leaf [V, D]
  std::shared_ptr<const TrainedRows> rows;      // null: none
  std::shared_ptr<const LowRankRows> low_rank;  // null: none
};

/// Vectors of `token_ids` [M] int64: [M, D]. Backward adds to the float32 `.grad` of the weight, of
/// trained rows and of A in the order of the tokens. Ids must be below V (the data is checked against the
/// vocabulary before).
at::Tensor embed(const at::Tensor& token_ids, const Embedding& embedding);

}  // namespace temper::trainer
