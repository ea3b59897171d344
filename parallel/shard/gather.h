#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"
#include "parallel/replicate/bucket_plan.h"

namespace temper::parallel {

/// Elements that travel at once, of all ranks together: enough for a link to be busy, small beside a
/// bucket that holds an embedding. A device's links are faster, and the host waits for each time.
constexpr int64_t kGatheredElements = 1 << 20, kGatheredOnDevice = 1 << 24;

/// Every rank of `group` gets the pieces (shard_plan.h) of all others: `tensors`, contiguous and in
/// the plan's order, are whole and equal afterwards. They travel through two buffers in turn, so
/// tensors lie where they like. Undefined ones stay as they are;
/// a bucket has none of them or nothing else. Collective.
void gather_shards(const std::vector<at::Tensor>& tensors, const BucketPlan& plan,
                   Communicator& group);

}  // namespace temper::parallel
