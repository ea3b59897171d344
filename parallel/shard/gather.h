#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"
#include "parallel/replicate/bucket_plan.h"

namespace temper::parallel {

/// Every rank of `group` gets the pieces (shard_plan.h) of all others: `tensors`, contiguous and in
/// the plan's order, are whole and equal afterwards. A few megabytes after the other travel
/// through a buffer of their own, so tensors lie where they like. Undefined ones stay as they are;
/// a bucket has none of them or nothing else. Collective.
void gather_shards(const std::vector<at::Tensor>& tensors, const BucketPlan& plan,
                   Communicator& group);

}  // namespace temper::parallel
