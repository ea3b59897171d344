#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"
#include "parallel/replicate/bucket_plan.h"
#include "parallel/shard/shard_plan.h"

namespace temper::parallel {

/// Tensors that are whole only for a while (Zhao et al. 2023, arXiv:2304.11277): each rank of a
/// group keeps its pieces of them, and between release() and finish() their storages are empty. Views
/// of them, and what autograd has saved, see the values again.
///
///     ShardedTensors sharded(weights, bucket_elements, group);   // keeps pieces
///     sharded.release();     // gives up the rest
///     sharded.start();       // the gather begins
///     sharded.finish();      // they are whole
///     sharded.release();
class ShardedTensors {
 public:
  /// Takes this rank's pieces, those of plan_buckets(sizes, bucket_elements, ranks), from the values of
  /// `tensors`: contiguous, of one type, each a whole storage or beside others in one. Where these are
  /// in another ShardedTensors, all of them are made before one is released.
  ShardedTensors(const std::vector<at::Tensor>& tensors, int64_t bucket_elements,
                 Communicator& group);

  /// Where this rank's pieces are in the tensors, and a flat tensor for each, which gathers read.
  const std::vector<ShardPiece>& places() const { return places_; }
  const std::vector<at::Tensor>& pieces() const { return pieces_; }

  /// Collective; finish() must follow before the next start().
  void start();
  void finish();
  void release();

 private:
  struct Storage {
    c10::Storage storage;
    size_t bytes = 0;
  };
  struct Bucket {
    at::Tensor own;         // this rank's segment
    at::Tensor all;         // of all ranks, while it is gathered
    at::Tensor own_bytes, all_bytes;  // the same: not every type is MPI's
    WorkPtr work;
  };

  Communicator& group_;
  BucketPlan plan_;
  std::vector<at::Tensor> tensors_;  // flat
  std::vector<Storage> storages_;
  std::vector<Bucket> buckets_;
  std::vector<ShardPiece> places_;
  std::vector<at::Tensor> pieces_;
};

}  // namespace temper::parallel
