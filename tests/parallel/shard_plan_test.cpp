#include "parallel/shard/shard_plan.h"

#include <gtest/gtest.h>

namespace temper::parallel {

namespace {

TEST(ShardPlan, GivesEveryElementToOneRank) {
  const std::vector<int64_t> sizes = {1, 9000, 257, 100000, 31, 40000, 8192, 7};
  for (const int64_t shards : {1, 2, 3, 8, 1024}) {
    const BucketPlan plan = plan_buckets(sizes, 32768, shards);
    std::vector<std::vector<int>> owners;
    for (const int64_t size : sizes) owners.emplace_back(size, 0);
    for (int64_t shard = 0; shard < shards; ++shard) {
      for (const ShardPiece& piece : shard_pieces(plan, sizes, shards, shard)) {
        EXPECT_EQ(piece.begin % kBucketAlignment, 0);
        const int64_t segment = plan.bucket_sizes[piece.bucket] / shards;
        EXPECT_LE(piece.offset + piece.count, segment);
        const auto [bucket, offset] = plan.slots[piece.parameter];
        EXPECT_EQ(piece.bucket, bucket);
        EXPECT_EQ(shard * segment + piece.offset, offset + piece.begin);
        for (int64_t i = 0; i < piece.count; ++i) ++owners[piece.parameter][piece.begin + i];
      }
    }
    for (const std::vector<int>& parameter : owners) {
      EXPECT_EQ(parameter, std::vector<int>(parameter.size(), 1)) << shards;
    }
  }
}

TEST(ShardPlan, CutsAParameterWhereSegmentsMeet) {
  const std::vector<int64_t> sizes = {20000};
  const BucketPlan plan = plan_buckets(sizes, 1, 2);
  ASSERT_EQ(plan.bucket_sizes, (std::vector<int64_t>{32768}));
  const auto first = shard_pieces(plan, sizes, 2, 0), second = shard_pieces(plan, sizes, 2, 1);
  ASSERT_EQ(first.size(), 1U);
  ASSERT_EQ(second.size(), 1U);
  EXPECT_EQ(first[0].count, 16384);
  EXPECT_EQ(second[0].begin, 16384);
  EXPECT_EQ(second[0].count, 3616);
  EXPECT_EQ(second[0].offset, 0);
}

}  // namespace

}  // namespace temper::parallel
