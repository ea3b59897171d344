#pragma once

#include <cstdint>
#include <vector>

/// How gradients are laid out in flat buckets: a pure function of their sizes.
namespace temper::parallel {

struct BucketPlan {
  struct Slot {
    int64_t bucket = 0;
    int64_t offset = 0;  // in elements; a multiple of kBucketAlignment
  };
  std::vector<Slot> slots;            // one a parameter, in the order of the parameters
  std::vector<int64_t> bucket_sizes;  // elements, in the order in which backward fills them
};

/// Elements: a block of 8-bit moments, so that wherever a bucket is cut at a multiple of it, the
/// blocks of its parameters stay whole.
constexpr int64_t kBucketAlignment = 256;

/// Elements: a sharded bucket is cut into segments of multiples of this, a block of the gradient's
/// norm (optimizers/blocks.h), so that the norm is the sum of the same blocks on every layout.
constexpr int64_t kSegmentAlignment = 8192;

/// Elements: no bucket is made smaller than this to end early.
constexpr int64_t kSmallBucket = 1 << 18;

/// Buckets of at most `bucket_elements` (a larger parameter has one of its own), filled from the
/// last parameter to the first, since backward finishes them in that order. `units`, where given, a
/// number a parameter: neighbours of different numbers share no bucket, and each such run is planned
/// for itself. After a run's first bucket, none has more than half of what is left of it: nothing
/// hides the exchange of the last. With several `shards` each
/// is longer by what makes segments of one size; where parameters lie does not depend on it.
BucketPlan plan_buckets(const std::vector<int64_t>& sizes, int64_t bucket_elements,
                        int64_t shards = 1, const std::vector<int64_t>& units = {});

}  // namespace temper::parallel
