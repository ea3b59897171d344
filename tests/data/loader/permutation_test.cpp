#include "data/loader/permutation.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

namespace temper::data {
namespace {

std::vector<int64_t> order(int64_t count, uint64_t key) {
  const Permutation permutation(count, key);
  std::vector<int64_t> result;
  for (int64_t i = 0; i < count; ++i) result.push_back(permutation(i));
  return result;
}

TEST(Permutation, VisitsEveryNumberOnceForAnyCount) {
  for (const int64_t count : {1, 2, 3, 4, 5, 7, 16, 17, 63, 65, 1000, 4097, 10007}) {
    std::vector<int64_t> visited = order(count, 7);
    std::sort(visited.begin(), visited.end());
    std::vector<int64_t> all(static_cast<size_t>(count));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(visited, all) << count;
  }
}

TEST(Permutation, DependsOnTheKeyAndOnNothingElse) {
  EXPECT_EQ(order(1000, 1), order(1000, 1));
  EXPECT_NE(order(1000, 1), order(1000, 2));
}

TEST(Permutation, SpreadsNeighboursFarApart) {
  // The mean distance of two independent uniform numbers below n is n / 3.
  const std::vector<int64_t> visited = order(10007, 3);
  double distance = 0;
  for (size_t i = 1; i < visited.size(); ++i) {
    distance += std::abs(static_cast<double>(visited[i] - visited[i - 1]));
  }
  EXPECT_NEAR(distance / 10006, 10007 / 3.0, 100);
}

TEST(Permutation, EveryOrderOfThreeOccurs) {
  std::vector<std::vector<int64_t>> seen;
  for (uint64_t key = 0; key < 100; ++key) seen.push_back(order(3, key));
  std::sort(seen.begin(), seen.end());
  EXPECT_EQ(std::unique(seen.begin(), seen.end()) - seen.begin(), 6);
}

}  // namespace
}  // namespace temper::data
