#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"

/// Sums of float32 tensors over the micro-batches of a step in one order, whatever the number of
/// ranks that share them: a binary tree over the micro-batches' numbers.
///
/// M micro-batches are halved while their number is even; what is left is a leaf, added up in
/// order. R ranks, a power of two that divides M, hold aligned runs of M / R: a rank's own sum is a
/// subtree, and the sums of ranks are the tree's upper levels. A micro-batch that a short step
/// lacks counts as zero.
///
///     0   1   2 | 3   4   5       M = 6, a leaf of 3 each; 1 rank, or 2
///      \__|__/     \__|__/
///          \__________/
namespace temper::parallel {

/// The subtree of one rank. Gradients are added into `live` tensors by whoever computes them.
class TreeSum {
 public:
  /// `micro_batches`: of this rank in a full step. Holds up to log2(micro_batches) copies of
  /// `live`.
  TreeSum(std::vector<at::Tensor> live, int64_t micro_batches);

  /// A new step; the live tensors are zero.
  void begin();
  /// Before each micro-batch: puts aside what the tree adds later and zeroes the live tensors.
  void next();
  /// After the last one: live[i] becomes this rank's sum.
  void complete(size_t i);

  /// Copies of the live tensors that a full step holds.
  static int64_t levels(int64_t micro_batches);

 private:
  std::vector<at::Tensor> live_;
  int64_t leaf_;
  int64_t begun_ = 0;                             // micro-batches of this step
  std::vector<std::vector<at::Tensor>> aside_{};  // [level][tensor]: sums of 2^level leaves
};

/// Adds up `tensor` of all ranks, a power of two, in the order of the tree. The second half of the
/// exchange happens in wait(), which every rank must call in the order of these calls.
WorkPtr tree_all_reduce(at::Tensor& tensor, Communicator& communicator);

/// `output` [n] receives this rank's n-th of the sum of `input` [ranks * n], in the same order and
/// under the same rules.
WorkPtr tree_reduce_scatter(at::Tensor& output, const at::Tensor& input,
                            Communicator& communicator);

}  // namespace temper::parallel
