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

/// Elements: 64 bytes of float32, so that every view starts on a cache line.
constexpr int64_t kBucketAlignment = 16;

/// Buckets of at most `bucket_elements` (a larger parameter has one of its own), filled from the
/// last parameter to the first, since backward finishes them in that order.
BucketPlan plan_buckets(const std::vector<int64_t>& sizes, int64_t bucket_elements);

}  // namespace temper::parallel
