#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "parallel/replicate/bucket_plan.h"

/// Which elements each of several ranks owns: every bucket is cut into segments of one size, one a
/// rank, and where a segment meets a parameter there is a piece. A pure function of the plan.
///
///     bucket   | w w w w w w w w | w w . b b . . . |      2 shards; . is alignment
///     pieces     w[0:8] of rank 0  w[8:10], b[0:2] of rank 1
namespace temper::parallel {

struct ShardPiece {
  size_t parameter = 0;
  int64_t begin = 0;   // in the parameter, flat; a multiple of kBucketAlignment
  int64_t count = 0;
  int64_t bucket = 0;
  int64_t offset = 0;  // in the rank's segment of that bucket
};

/// The pieces of rank `shard` of `shards`, in the order of the parameters. `plan` is that of
/// plan_buckets(sizes, ..., shards).
std::vector<ShardPiece> shard_pieces(const BucketPlan& plan, const std::vector<int64_t>& sizes,
                                     int64_t shards, int64_t shard);

}  // namespace temper::parallel
