#include "data/loader/pack.h"

#include <random>

#include <gtest/gtest.h>

namespace temper::data {
namespace {

using recipes::Packing;

std::vector<std::vector<int64_t>> rows_of(const PackedRows& packed) {
  std::vector<std::vector<int64_t>> result;
  for (int64_t i = 0; i < packed.size(); ++i) {
    result.emplace_back();
    for (const Segment& segment : packed[i]) result.back().push_back(segment.row);
  }
  return result;
}

using Bins = std::vector<std::vector<int64_t>>;

TEST(Bfd, TakesTheLongestRowsFirstAndTheFullestBinThatHasRoom) {
  const std::vector<int32_t> lengths = {3, 7, 2, 5, 1};
  // 7 opens bin 0 (3 free), 5 opens bin 1 (5 free), 3 fills bin 0, 2 and 1 go to bin 1.
  EXPECT_EQ(rows_of(pack(lengths, 10, Packing::kBfd, 100)), (Bins{{1, 0}, {3, 2, 4}}));
}

TEST(Bfd, ClosesABinThatIsFull) {
  const std::vector<int32_t> lengths = {4, 4, 4};
  EXPECT_EQ(rows_of(pack(lengths, 4, Packing::kBfd, 100)), (Bins{{0}, {1}, {2}}));
}

TEST(Bfd, AmongEquallyFullBinsTakesTheOneThatHasBeenSoLongest) {
  const std::vector<int32_t> lengths = {6, 6, 4, 4};
  EXPECT_EQ(rows_of(pack(lengths, 10, Packing::kBfd, 100)), (Bins{{0, 2}, {1, 3}}));
}

TEST(Bfd, CutsRowsAboveCapacityAndLeavesOutEmptyOnes) {
  const std::vector<int32_t> lengths = {0, 9, 3};
  const PackedRows packed = pack(lengths, 4, Packing::kBfd, 100);
  ASSERT_EQ(packed.size(), 2);
  EXPECT_EQ(packed[0][0], (Segment{.row = 1, .begin = 0, .end = 4}));
  EXPECT_EQ(packed[1][0], (Segment{.row = 2, .begin = 0, .end = 3}));
}

TEST(Bfd, NeverPacksAcrossAWindow) {
  const std::vector<int32_t> lengths = {1, 1, 1, 1};
  EXPECT_EQ(rows_of(pack(lengths, 10, Packing::kBfd, 3)), (Bins{{0, 1, 2}, {3}}));
}

TEST(BfdSplit, KeepsThePiecesOfALongRow) {
  const std::vector<int32_t> lengths = {9};
  const PackedRows packed = pack(lengths, 4, Packing::kBfdSplit, 100);
  ASSERT_EQ(packed.size(), 3);
  EXPECT_EQ(packed[2][0], (Segment{.row = 0, .begin = 8, .end = 9}));
}

TEST(Wrapped, CutsTheConcatenationEveryCapacityTokens) {
  const std::vector<int32_t> lengths = {3, 3, 1};
  const PackedRows packed = pack(lengths, 4, Packing::kWrapped, 100);
  ASSERT_EQ(packed.size(), 2);
  EXPECT_EQ(packed[0][1], (Segment{.row = 1, .begin = 0, .end = 1}));
  EXPECT_EQ(packed[1][0], (Segment{.row = 1, .begin = 1, .end = 3}));
  EXPECT_EQ(packed[1][1], (Segment{.row = 2, .begin = 0, .end = 1}));
}

TEST(NoPacking, LeavesRowsByThemselvesInFileOrder) {
  const std::vector<int32_t> lengths = {3, 9, 1};
  EXPECT_EQ(rows_of(pack(lengths, 4, Packing::kNone, 2)), (Bins{{0}, {1}, {2}}));
}

TEST(Packing, LosesAndDoublesNoToken) {
  std::mt19937 random(1);
  for (const Packing packing : {Packing::kBfd, Packing::kBfdSplit, Packing::kWrapped}) {
    for (int round = 0; round < 50; ++round) {
      const int32_t capacity = 1 + static_cast<int32_t>(random() % 40);
      const int32_t longest = packing == Packing::kBfd ? capacity : 3 * capacity;
      std::vector<int32_t> lengths(random() % 60);
      for (int32_t& length : lengths) length = static_cast<int32_t>(random() % (longest + 1));
      const PackedRows packed = pack(lengths, capacity, packing, 17);
      std::vector<std::vector<int>> times(lengths.size());
      for (size_t i = 0; i < lengths.size(); ++i) times[i].resize(static_cast<size_t>(lengths[i]));
      for (int64_t i = 0; i < packed.size(); ++i) {
        int32_t filled = 0;
        for (const Segment& segment : packed[i]) {
          filled += segment.end - segment.begin;
          for (int32_t t = segment.begin; t < segment.end; ++t) {
            ++times[static_cast<size_t>(segment.row)][static_cast<size_t>(t)];
          }
        }
        EXPECT_GT(filled, 0);
        EXPECT_LE(filled, capacity);
      }
      for (const auto& row : times) {
        for (const int count : row) EXPECT_EQ(count, 1);
      }
    }
  }
}

}  // namespace
}  // namespace temper::data
