#include "parallel/shard/shard_plan.h"

#include <algorithm>

namespace temper::parallel {

std::vector<ShardPiece> shard_pieces(const BucketPlan& plan, const std::vector<int64_t>& sizes,
                                     int64_t shards, int64_t shard) {
  std::vector<ShardPiece> pieces;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto [bucket, offset] = plan.slots[i];
    const int64_t segment = plan.bucket_sizes[bucket] / shards;
    const int64_t begin = std::max(offset, shard * segment);
    const int64_t end = std::min(offset + sizes[i], (shard + 1) * segment);
    if (begin >= end) continue;
    pieces.push_back({.parameter = i,
                      .begin = begin - offset,
                      .count = end - begin,
                      .bucket = bucket,
                      .offset = begin - shard * segment});
  }
  return pieces;
}

}  // namespace temper::parallel
