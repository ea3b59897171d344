#pragma once

#include <vector>

#include "parallel/communicator.h"
#include "parallel/replicate/gradient_reducer.h"
#include "parallel/shard/shard_plan.h"
#include "trainer/models/model.h"
#include "trainer/sharded_blocks.h"

/// ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054) on the side of the weights: each rank of a group
/// that shares one copy updates its own pieces of every parameter, and has masters and optimizer
/// states of those alone; the values that forward sees stay whole on every rank.
///
///     ShardedParameters sharded(model.parameters(), reducer, mesh.group(Axis::kShard), false);
///     auto optimizer = build_optimizer(options, sharded.pieces());
///     ...
///     optimizer->step(lr, scale);       // own pieces
///     sharded.gather_values();          // everybody's
namespace temper::trainer {

class ShardedParameters {
 public:
  /// Takes the masters of the trainable ones away (`parameters[i].master` is undefined then) unless
  /// they are the values or `keep_masters`: those of adapters are small, and read where they are
  /// merged, by DoRA in every pass. All arguments outlive it.
  /// The pieces of parameters that `blocks` holds (null: none) are its own.
  ShardedParameters(std::vector<Parameter>& parameters, const parallel::GradientReducer& reducer,
                    parallel::Communicator& group, bool keep_masters, const ShardedBlocks* blocks = nullptr);

  /// This rank's, flat, named as in checkpoint/piece.h; their gradients are views of the reducer's
  /// segments.
  std::vector<Parameter>& pieces() { return pieces_; }
  const std::vector<Parameter>& pieces() const { return pieces_; }

  /// After the pieces' values have changed: every rank sees all of them, and of the masters that were
  /// kept, but for those that blocks hold. Returns the seconds that it took. Collective.
  double gather_values();
  /// After the pieces' masters have been loaded: rounds them into values. Collective.
  void refresh_values();

 private:
  std::vector<at::Tensor> values_;            // of the trainable ones; undefined where blocks hold it
  std::vector<at::Tensor> masters_;           // undefined but where they are kept beside the value
  std::vector<Parameter> pieces_;
  const parallel::BucketPlan& plan_;
  parallel::Communicator& group_;
};

}  // namespace temper::trainer
