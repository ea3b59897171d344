#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

struct Parameter;

/// Told by a model when it goes through its blocks, forward from the first and in backward from the
/// last, so that their weights need to be whole only then (sharded_blocks.h).
class BlockHooks {
 public:
  virtual ~BlockHooks() = default;
  virtual void begin_forward() = 0;
  virtual void before_forward(int64_t block) = 0;
  /// `output_has_gradient`: backward will come through the block.
  virtual void after_forward(int64_t block, bool output_has_gradient) = 0;
  virtual void before_backward(int64_t block) = 0;
  virtual void after_backward(int64_t block) = 0;
  /// Ends a run of passes, of which other ranks may have made more. Collective.
  virtual void end_passes() = 0;
  /// Whether it keeps the values of this parameter, and gives it new ones from a whole tensor.
  virtual bool holds(const Parameter& parameter) const = 0;
  virtual void store(const Parameter& parameter, const at::Tensor& whole) = 0;
};

/// x itself, around a block: what goes into it and what comes out of it, in both directions. Nothing
/// where `hooks` is null.
at::Tensor enter_block(const at::Tensor& x, BlockHooks* hooks, int64_t block);
at::Tensor leave_block(const at::Tensor& x, BlockHooks* hooks, int64_t block);

}  // namespace temper::trainer
