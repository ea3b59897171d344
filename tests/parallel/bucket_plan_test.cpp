#include "parallel/replicate/bucket_plan.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace temper::parallel {

namespace {

TEST(BucketPlan, FillsFromTheLastParameterToTheFirst) {
  const BucketPlan plan = plan_buckets({16, 32, 48}, 96);
  EXPECT_EQ(plan.bucket_sizes, (std::vector<int64_t>{96}));
  EXPECT_EQ(plan.slots[2].offset, 0);
  EXPECT_EQ(plan.slots[1].offset, 48);
  EXPECT_EQ(plan.slots[0].offset, 80);
}

TEST(BucketPlan, ClosesABucketThatTheNextParameterWouldOverfill) {
  const BucketPlan plan = plan_buckets({16, 32, 48}, 64);
  EXPECT_EQ(plan.bucket_sizes, (std::vector<int64_t>{48, 48}));
  EXPECT_EQ(plan.slots[2].bucket, 0);
  EXPECT_EQ(plan.slots[1].bucket, 1);
  EXPECT_EQ(plan.slots[0].bucket, 1);
}

TEST(BucketPlan, GivesAParameterLargerThanABucketOneOfItsOwn) {
  const BucketPlan plan = plan_buckets({16, 1000, 16}, 64);
  EXPECT_EQ(plan.bucket_sizes, (std::vector<int64_t>{16, 1008, 16}));
}

TEST(BucketPlan, StartsEveryParameterOnACacheLineWithoutOverlap) {
  const std::vector<int64_t> sizes = {1, 15, 17, 31, 100, 7};
  const BucketPlan plan = plan_buckets(sizes, 80);
  std::vector<int64_t> filled(plan.bucket_sizes.size(), 0);
  for (size_t i = sizes.size(); i-- > 0;) {
    const auto [bucket, offset] = plan.slots[i];
    EXPECT_EQ(offset % kBucketAlignment, 0);
    EXPECT_GE(offset, filled[bucket]);
    filled[bucket] = offset + sizes[i];
    EXPECT_LE(filled[bucket], plan.bucket_sizes[bucket]);
  }
}

TEST(BucketPlan, OfNoParametersIsEmpty) { EXPECT_TRUE(plan_buckets({}, 64).bucket_sizes.empty()); }

}  // namespace

}  // namespace temper::parallel
