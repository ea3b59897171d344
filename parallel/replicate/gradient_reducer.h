#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"
#include "parallel/replicate/bucket_plan.h"

/// Replicated data parallelism (Li et al. 2020, arXiv:2006.15704): gradients live in flat float32
/// buckets, filled in reverse order of the parameters, and a bucket's all-reduce starts as soon as
/// backward has finished with its last parameter.
///
/// The reducer owns the buckets and sets every parameter's `.grad` to a view of one (float32, also
/// for bf16 parameters: ops accumulate into that view themselves, see trainer/ops/linear.h). Sums
/// are not divided: the caller scales by the global count of supervised tokens in the optimizer's
/// pass, so a result does not depend on how a batch is cut.
///
///     reducer.begin_step(micro_batches);          // zeroes the buckets
///     for (int64_t i = 0; i < micro_batches; ++i) {
///       reducer.exchange_after_backward(i + 1 == micro_batches);
///       loss.backward();
///     }
///     reducer.finish();                           // every exchange done; unused parameters count
///     as zero
///
/// The last bucket can hide behind nothing. Where it holds one large matrix (an embedding that is not
/// tied), ranks first agree on its rows that are not zero everywhere, and exchange those alone.
///
/// With `exact_micro_batches`, those of a rank in a full step, sums are in the order of the
/// micro-batches' numbers (tree_sum.h): the same bits on every layout.
///
/// Sharded (ZeRO, Rajbhandari et al. 2020, arXiv:1910.02054), a rank gets the sums of its own
/// segment of each bucket alone (shard_plan.h). With sharded gradients it keeps nothing else
/// between micro-batches: each one's buckets are made as backward fills them (from the gradient
/// that an op leaves in `.grad`, which is unset again), scattered and given up. Then `.grad` of a
/// parameter is unset between steps. Exact sums need the buckets until the step's end, so with them
/// they stay.
namespace temper::parallel {

/// Elements of a matrix whose rows are worth an exchange of their own.
constexpr int64_t kLargeMatrix = 1 << 20;

struct GradientSharding {
  Communicator* group = nullptr;  // ranks that share one copy; null: one rank has all
  bool keeps_segments = false;    // ZeRO 2: nothing but segments between micro-batches
};

class GradientReducer {
 public:
  /// `parameters` in forward order; those that do not require a gradient are left out. Sums are
  /// over the ranks of `replicas` x `sharding.group`, which outlive it. `units`: a number for each of
  /// the parameters, which no bucket mixes (plan_buckets).
  GradientReducer(std::vector<at::Tensor> parameters, Communicator& replicas, int64_t bucket_bytes,
                  std::optional<int64_t> exact_micro_batches = {}, GradientSharding sharding = {},
                  const std::vector<int64_t>& units = {});
  ~GradientReducer();
  GradientReducer(const GradientReducer&) = delete;
  GradientReducer& operator=(const GradientReducer&) = delete;

  /// `micro_batches`: of this rank in this step. Collective where segments are kept.
  void begin_step(int64_t micro_batches);
  /// Whether the next backward is the last of the window: only then do hooks start exchanges.
  void exchange_after_backward(bool last);
  /// Hooks are going to start exchanges in the next backward.
  bool exchanging() const;
  /// This rank has no backward left and others of the group are about to make one, which waits for
  /// our part where segments are kept: it is zero. (Without it finish() joins them.)
  void join_backward();
  /// Starts what no hook has started (a rank without rows, an unused parameter) and waits for all
  /// buckets.
  void finish();
  /// This rank's segment of each bucket, float32, for norms and the optimizer's pass; unsharded the
  /// bucket itself.
  const std::vector<at::Tensor>& segments() const;
  /// Of the parameters that require a gradient.
  const BucketPlan& plan() const;
  /// Seconds that finish() waited in the last step: the part of the exchange that backward did not
  /// hide.
  double exposed_seconds() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::parallel
