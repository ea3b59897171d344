#include "parallel/seed.h"

#include <bit>
#include <set>

#include <gtest/gtest.h>

namespace temper::parallel {

namespace {

TEST(Seed, IsTheSameOnEveryMachine) {
  // Checkpoints and caches depend on these: they may never change.
  EXPECT_EQ(seed_of(42, "shuffle"), 15762295886958978478ULL);
  EXPECT_EQ(seed_of(42, "dropout", 3, 100), 15478254631537747544ULL);
}

TEST(Seed, DiffersInEveryArgument) {
  std::set<uint64_t> seeds;
  for (const int64_t run : {0, 1, -1, 42}) {
    for (const char* purpose : {"", "a", "b", "ab", "ba"}) {
      for (const int64_t rank : {0, 1, 1023}) {
        for (const int64_t step : {0, 1, 1000000}) seeds.insert(seed_of(run, purpose, rank, step));
      }
    }
  }
  EXPECT_EQ(seeds.size(), 4U * 5 * 3 * 3);
}

TEST(Seed, NeighbouringStepsShareNoPattern) {
  int64_t flipped = 0;
  for (int64_t step = 0; step < 1000; ++step) {
    flipped += std::popcount(seed_of(1, "x", 0, step) ^ seed_of(1, "x", 0, step + 1));
  }
  EXPECT_NEAR(static_cast<double>(flipped) / 1000, 32, 1);
}

}  // namespace

}  // namespace temper::parallel
