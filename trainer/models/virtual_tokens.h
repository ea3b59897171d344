#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

#include "trainer/ops/attention.h"
#include "trainer/ops/low_rank.h"

/// Trained vectors in front of every document, where a reader would expect tokens: prompt tuning
/// (Lester et al. 2021, arXiv:2104.08691), p-tuning (Liu et al. 2021, arXiv:2103.10385) and prefix
/// tuning (Li and Liang 2021, arXiv:2101.00190). A model holds at most one VirtualTokens and shows
/// nothing of it: what goes in and comes out are the real tokens.
namespace temper::trainer {

struct VirtualTokens {
  int64_t count = 0;  // n
  /// False: embeddings of n tokens, positions 0 to n - 1, which pass through the blocks as any
  /// token does. True: keys and values in every layer, as a cache would hold them after n tokens
  /// (no norm, no rotary embedding).
  bool prefix = false;
  /// [n, D], or of a prefix [n, 2 layers K E] (layer by layer, its keys, then its values), float32;
  /// asked for once a forward pass.
  std::function<at::Tensor()> vectors;
  std::shared_ptr<const AdapterContext> context;
};

/// A packed batch of N tokens with n virtual ones in front of each of its S documents that have no
/// prefix, padding included: whether a document is padding cannot be known from its tokens, and it
/// costs no more. (What stands in front of a prefix stands in front of all that it belongs to.)
struct Longer {
  DocumentLayout documents;
  at::Tensor positions;       // [N + S n] int64, from 0 with a document's virtual tokens
  at::Tensor tokens;          // [N] int64: where the real tokens are
  at::Tensor virtual_tokens;  // [S n] int64: where the others are, document by document
};

/// `positions` [N] int64, as in data::Batch.
Longer longer_batch(const at::Tensor& positions, const DocumentLayout& documents, int64_t n);

/// x [N, W] spread to [N + S n, W], with `rows` [n, w] before each document: in the last w columns,
/// the others zero there. The gradient of `rows` is summed in float32, document by document.
at::Tensor insert_rows(const at::Tensor& x, const at::Tensor& rows, const Longer& longer);

/// Back from [N + S n, W] to the real tokens [N, W].
at::Tensor take_tokens(const at::Tensor& x, const Longer& longer);

}  // namespace temper::trainer
