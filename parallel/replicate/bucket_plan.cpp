#include "parallel/replicate/bucket_plan.h"

#include <algorithm>
#include <numeric>

namespace temper::parallel {
namespace {

int64_t round_up(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }

}  // namespace

BucketPlan plan_buckets(const std::vector<int64_t>& sizes, int64_t bucket_elements, int64_t shards,
                        const std::vector<int64_t>& units) {
  BucketPlan plan;
  plan.slots.resize(sizes.size());
  const auto ends_unit = [&](size_t i) {
    return !units.empty() && i + 1 < units.size() && units[i] != units[i + 1];
  };
  int64_t left =
      std::accumulate(sizes.begin(), sizes.end(), int64_t{0}) - (ends_unit(0) ? sizes[0] : 0);
  int64_t limit = bucket_elements;
  for (size_t i = sizes.size(); i-- > 0;) {
    const int64_t size = round_up(sizes[i], kBucketAlignment);
    if (plan.bucket_sizes.empty() || ends_unit(i) || plan.bucket_sizes.back() + size > limit) {
      if (!plan.bucket_sizes.empty())
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
