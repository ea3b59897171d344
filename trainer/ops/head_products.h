#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/ops/head_cross_entropy.h"

/// What the operators that end in an output head share: its products for a chunk of rows, so that
/// logits never exist for more. Legend: M rows of the chunk, D features, V vocabulary.
namespace temper::trainer {

/// The rows whose gradients are made at once, and how many of them have float32 logits at once.
struct HeadChunk {
  int64_t rows = 0, logits = 0;
};
struct HeadSizes {
  int64_t count = 0;  // of all rows
  int64_t vocabulary = 0;
  int64_t models = 1;  // that have logits of the same rows
};
/// What logits take at once is bounded. On the CPU all rows of a chunk have theirs. On a device every
/// chunk reads and writes the gradient of the whole weight, and its products are to fill the device:
/// a chunk is larger there, and the gradient of its logits, of `element` bytes each, takes twice what
/// logits take. For one model that is about 384 MiB together, 512 at most up to 262144 outputs.
HeadChunk head_chunk(const HeadSizes& sizes, bool on_device, int64_t element);

/// Where logits and their gradient lie, chunk after chunk. On a device all rows begin at 16 bytes.
class HeadMemory {
 public:
  /// `hidden`: what goes into the head. Only with gradients there are dlogits.
  HeadMemory(const at::Tensor& hidden, const HeadSizes& sizes, bool with_gradients);
  const HeadChunk& chunk() const { return chunk_; }
  /// [count, V] float32 of the chunk's rows from `first` on, of one of the models: where those of
  /// other rows were.
  at::Tensor logits(int64_t first, int64_t count, int64_t model = 0) const;
  /// [count, V] in hidden's type, in float32 in place of the first model's logits; or undefined.
  at::Tensor dlogits(int64_t first, int64_t count) const;

 private:
  HeadChunk chunk_;
  std::vector<at::Tensor> logits_;  // of each model
  at::Tensor dlogits_;
};

/// What the head's gradients go to. A node that takes these as inputs runs before their hooks do.
std::vector<at::Tensor> head_leaves(const OutputHead& head);

/// sum[positions[i]] += rows[i] in the order of i, whatever the number of threads: rows [n, D] to
/// `shape` [..., D], in the rows' type.
at::Tensor add_at(const at::Tensor& rows, const at::Tensor& positions, at::IntArrayRef shape);

class HeadProducts {
 public:
  /// x [M, D]. `first`: the chunk's place among all rows, so that it has a dropout mask of its own.
  HeadProducts(const OutputHead& head, const at::Tensor& x, int64_t first);
  /// logits [n, V] of rows first.. of the chunk, any float type; divided by `temperature`.
  void logits_into(const at::Tensor& logits, int64_t first = 0, double temperature = 1) const;
  /// dx [M, D] is written, gradients of the head's leaves are added (gradient.h). dlogits [M, V] may be
  /// overwritten.
  void gradients(const at::Tensor& dlogits, const at::Tensor& dx);

 private:
  const TrainedRows* rows() const;

  const OutputHead& head_;
  const at::Tensor x_;
  std::optional<LowRank> lora_;
  at::Tensor h_;
};

}  // namespace temper::trainer
