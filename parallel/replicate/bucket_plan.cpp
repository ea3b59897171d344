#include "parallel/replicate/bucket_plan.h"

#include <algorithm>

namespace temper::parallel {
namespace {

int64_t round_up(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

}  // namespace

BucketPlan plan_buckets(const std::vector<int64_t>& sizes, int64_t bucket_elements, int64_t shards,
                        const std::vector<int64_t>& units) {
  BucketPlan plan;
  plan.slots.resize(sizes.size());
  const auto same_unit = [&](size_t a, size_t b) { return units.empty() || units[a] == units[b]; };
  int64_t left = 0;   // of a unit
  int64_t limit = 0;  // of a bucket
  for (size_t i = sizes.size(); i-- > 0;) {
    const int64_t size = round_up(sizes[i], kBucketAlignment);
    if (i + 1 == sizes.size() || !same_unit(i, i + 1)) {
      left = 0;
      for (size_t j = i + 1; j-- > 0 && same_unit(j, i);) left += sizes[j];
      limit = bucket_elements;
      plan.bucket_sizes.push_back(0);
    } else if (plan.bucket_sizes.back() + size > limit) {
      limit = std::min(bucket_elements, std::max(kSmallBucket, left / 2));
      plan.bucket_sizes.push_back(0);
    }
    left -= sizes[i];
    plan.slots[i] = {.bucket = static_cast<int64_t>(plan.bucket_sizes.size()) - 1,
                     .offset = plan.bucket_sizes.back()};
    plan.bucket_sizes.back() += size;
  }
  if (shards == 1) return plan;
  for (int64_t& size : plan.bucket_sizes) size = round_up(size, kSegmentAlignment * shards);
  return plan;
}

}  // namespace temper::parallel
