#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/ops/head_cross_entropy.h"

/// What the operators that end in an output head share: its products for a chunk of rows, so that
/// logits never exist for more. Legend: M rows of the chunk, D features, V vocabulary.
namespace temper::trainer {

/// Rows a chunk: what float32 logits take at once is bounded. `count`: of all rows.
int64_t head_chunk(int64_t count, int64_t vocabulary);

/// What the head's gradients go to. A node that takes these as inputs runs before their hooks do.
std::vector<at::Tensor> head_leaves(const OutputHead& head);

/// sum[positions[i]] += rows[i] in the order of i, whatever the number of threads: rows [n, D] to
/// `shape` [..., D], in the rows' type.
at::Tensor add_at(const at::Tensor& rows, const at::Tensor& positions, at::IntArrayRef shape);

class HeadProducts {
 public:
  /// x [M, D]. `first`: the chunk's place among all rows, so that it has a dropout mask of its own.
  HeadProducts(const OutputHead& head, const at::Tensor& x, int64_t first);
  /// logits [M, V], any float type; divided by `temperature`.
  void logits_into(const at::Tensor& logits, double temperature = 1);
  /// After logits_into: dx [M, D] is written, gradients of the head's leaves are added (gradient.h).
  /// dlogits [M, V] may be overwritten.
  void gradients(const at::Tensor& dlogits, const at::Tensor& dx);

 private:
  const TrainedRows* rows() const;

  const OutputHead& head_;
  const at::Tensor x_;
  std::optional<LowRank> lora_;
  at::Tensor h_;
};

}  // namespace temper::trainer
