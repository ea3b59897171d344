#include "parallel/replicate/bucket_plan.h"

namespace temper::parallel {

BucketPlan plan_buckets(const std::vector<int64_t>& sizes, int64_t bucket_elements) {
  BucketPlan plan;
  plan.slots.resize(sizes.size());
  for (size_t i = sizes.size(); i-- > 0;) {
    const int64_t size = (sizes[i] + kBucketAlignment - 1) / kBucketAlignment * kBucketAlignment;
    if (plan.bucket_sizes.empty() || plan.bucket_sizes.back() + size > bucket_elements) {
      plan.bucket_sizes.push_back(0);
    }
    plan.slots[i] = {.bucket = static_cast<int64_t>(plan.bucket_sizes.size()) - 1,
                     .offset = plan.bucket_sizes.back()};
    plan.bucket_sizes.back() += size;
  }
  return plan;
}

}  // namespace temper::parallel
