#pragma once

#include <span>

#include <ATen/core/Tensor.h>

#include "trainer/models/model.h"
#include "trainer/ops/paged_attention.h"
#include "trainer/ops/rope.h"

/// Model::hidden_cached() of sequences that are not new, in two parts: what the host makes, and
/// what the device does with it, which can be recorded (ops/device_graph.h) and done again on other
/// inputs of the same shapes.
namespace temper::trainer {

struct DecodeInputs {
  at::Tensor token_ids;  // [N] int64
  at::Tensor table;      // page_table() of the N tokens: their positions come first
  RopeAngles angles;     // on a device undefined unless they depend on lengths: it makes its own
};

class DecodesInParts {
 public:
  virtual ~DecodesInParts() = default;
  /// On the host. Extends what `cache` holds of the sequences; rows may be KvCache::kNobody's.
  virtual DecodeInputs decode_inputs(const at::Tensor& token_ids, std::span<const CachedRun> runs,
                                     KvCache& cache) const = 0;
  /// Hidden states [N, D] (no-grad); `inputs` where the model is.
  virtual at::Tensor decode(const DecodeInputs& inputs, const PageShape& pages) = 0;
};

/// `inputs` on `device`, without waiting for what that still does.
DecodeInputs sent_to(at::Device device, const DecodeInputs& inputs);

}  // namespace temper::trainer
