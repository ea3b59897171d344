#include "parallel/replicate/bucket_plan.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace temper::parallel {

namespace {

TEST(BucketPlan, FillsFromTheLastParameterToTheFirst) {
  const BucketPlan plan = plan_buckets({256, 512, 768}, 1536);
  EXPECT_EQ(plan.bucket_sizes, (std::vector<int64_t>{1536}));
  EXPECT_EQ(plan.slots[2].offset, 0);
  EXPECT_EQ(plan.slots[1].offset, 768);
  EXPECT_EQ(plan.slots[0].offset, 1280);
}

TEST(BucketPlan, ClosesABucketThatTheNextParameterWouldOverfill) {
  const BucketPlan plan = plan_buckets({256, 512, 768}, 1024);
  EXPECT_EQ(plan.bucket_sizes, (std::vector<int64_t>{768, 768}));
  EXPECT_EQ(plan.slots[2].bucket, 0);
  EXPECT_EQ(plan.slots[1].bucket, 1);
  EXPECT_EQ(plan.slots[0].bucket, 1);
}

TEST(BucketPlan, GivesAParameterLargerThanABucketOneOfItsOwn) {
  const BucketPlan plan = plan_buckets({16, 1000, 16}, 512);
  EXPECT_EQ(plan.bucket_sizes, (std::vector<int64_t>{256, 1024, 256}));
}

TEST(BucketPlan, EndsWithSmallBuckets) {
  constexpr int64_t kMebi = 1 << 20;
  // What is left after a bucket: 13, 9, 5, 3, 2, 1 and one half.
  const std::vector<int64_t> sizes = {kMebi / 2, kMebi / 2, kMebi,     kMebi,
                                      2 * kMebi, 4 * kMebi, 4 * kMebi, 4 * kMebi};
  const BucketPlan plan = plan_buckets(sizes, 5 * kMebi);
  EXPECT_EQ(plan.bucket_sizes, (std::vector<int64_t>{4 * kMebi, 4 * kMebi, 4 * kMebi, 2 * kMebi,
                                                     kMebi, kMebi, kMebi / 2, kMebi / 2}));
  // Of another unit, it is not what is left.
  std::vector<int64_t> with_embedding = sizes, units(sizes.size(), 0);
  with_embedding.insert(with_embedding.begin(), 64 * kMebi);
  units.insert(units.begin(), 1);
  std::vector<int64_t> expected = plan.bucket_sizes;
  expected.push_back(64 * kMebi);
  EXPECT_EQ(plan_buckets(with_embedding, 5 * kMebi, 1, units).bucket_sizes, expected);
  // What fits in one bucket is one.
  EXPECT_EQ(plan_buckets(sizes, 17 * kMebi).bucket_sizes, (std::vector<int64_t>{17 * kMebi}));
}

TEST(BucketPlan, StartsEveryParameterAtABlockWithoutOverlap) {
  const std::vector<int64_t> sizes = {1, 255, 257, 31, 1000, 7};
  const BucketPlan plan = plan_buckets(sizes, 1024);
  std::vector<int64_t> filled(plan.bucket_sizes.size(), 0);
  for (size_t i = sizes.size(); i-- > 0;) {
    const auto [bucket, offset] = plan.slots[i];
    EXPECT_EQ(offset % kBucketAlignment, 0);
    EXPECT_GE(offset, filled[bucket]);
    filled[bucket] = offset + sizes[i];
    EXPECT_LE(filled[bucket], plan.bucket_sizes[bucket]);
  }
}

TEST(BucketPlan, LiesTheSameOnAnyNumberOfShards) {
  const std::vector<int64_t> sizes = {1, 9000, 257, 31, 40000, 7};
  const BucketPlan whole = plan_buckets(sizes, 16384);
  for (const int64_t shards : {2, 3, 64}) {
    const BucketPlan plan = plan_buckets(sizes, 16384, shards);
    ASSERT_EQ(plan.bucket_sizes.size(), whole.bucket_sizes.size());
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_EQ(plan.slots[i].bucket, whole.slots[i].bucket);
      EXPECT_EQ(plan.slots[i].offset, whole.slots[i].offset);
    }
    for (size_t b = 0; b < plan.bucket_sizes.size(); ++b) {
      EXPECT_EQ(plan.bucket_sizes[b] % (shards * kSegmentAlignment), 0);
      EXPECT_GE(plan.bucket_sizes[b], whole.bucket_sizes[b]);
      EXPECT_LT(plan.bucket_sizes[b] - whole.bucket_sizes[b], shards * kSegmentAlignment);
    }
  }
}

TEST(BucketPlan, OfNoParametersIsEmpty) { EXPECT_TRUE(plan_buckets({}, 64).bucket_sizes.empty()); }

}  // namespace

}  // namespace temper::parallel
