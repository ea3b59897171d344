#include "recipes/diagnostic.h"

#include <gtest/gtest.h>

namespace temper {
namespace {

TEST(NearestName, ForgivesAThirdOfTheLetters) {
  EXPECT_EQ(nearest_name("lrr", {"lr", "betas"}), "lr");
  EXPECT_EQ(nearest_name("optimiser", {"objective", "optimizer"}), "optimizer");
}

TEST(NearestName, CountsSwappedNeighboursOnce) {
  EXPECT_EQ(nearest_name("weigth", {"weight"}), "weight");
}

TEST(NearestName, IsEmptyWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("foo", {"log", "run"}), "");
  EXPECT_EQ(nearest_name("learning_rate", {"lr"}), "");
}

TEST(UserError, HoldsOneLineAFinding) {
  const UserError error(std::vector<std::string>{"first", "second"});
  EXPECT_EQ(error.lines().size(), 2u);
  EXPECT_STREQ(error.what(), "first\nsecond");
}

}  // namespace
}  // namespace temper
