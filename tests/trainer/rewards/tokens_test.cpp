#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/rewards/scoring.h"

namespace temper::trainer {
namespace {

std::vector<int32_t> tokens(int count) {
  std::vector<int32_t> ids(count);
  std::iota(ids.begin(), ids.end(), 100);
  return ids;
}

TEST(Length, FallsToMinusOneOverTheLastTokens) {
  recipes::Reward recipe = reward_of("length");
  recipe.max = 100;
  recipe.soft = 20;
  const auto reward = build_reward(recipe, 512);
  EXPECT_EQ(score(*reward, "", tokens(0)), 0.0);
  EXPECT_EQ(score(*reward, "", tokens(80)), 0.0);
  EXPECT_EQ(score(*reward, "", tokens(81)), -0.05);
  EXPECT_EQ(score(*reward, "", tokens(90)), -0.5);
  EXPECT_EQ(score(*reward, "", tokens(100)), -1.0);
  EXPECT_EQ(score(*reward, "", tokens(101)), -1.0);
}

TEST(Length, WithoutASoftPartItIsAStep) {
  recipes::Reward recipe = reward_of("length");
  recipe.max = 10;
  recipe.soft = 0;
  const auto reward = build_reward(recipe, 512);
  EXPECT_EQ(score(*reward, "", tokens(10)), 0.0);
  EXPECT_EQ(score(*reward, "", tokens(11)), -1.0);
}

TEST(Length, TheLimitOfRolloutsAndItsLastFifthAreTheDefaults) {
  const auto reward = build_reward(reward_of("length"), 50);
  EXPECT_EQ(score(*reward, "", tokens(40)), 0.0);
  EXPECT_EQ(score(*reward, "", tokens(45)), -0.5);
  EXPECT_EQ(score(*reward, "", tokens(50)), -1.0);
}

TEST(Repetition, IsTheShareOfRepeatedNgramsTimesThePenalty) {
  recipes::Reward recipe = reward_of("repetition");
  recipe.ngram = 2;
  recipe.max_penalty = -2.0;
  const auto reward = build_reward(recipe, 512);
  EXPECT_EQ(score(*reward, "", {1, 2, 3, 4}), 0.0);
  EXPECT_EQ(score(*reward, "", {5, 5, 5, 5, 5}), -1.5);  // 1 of 4 is new
  EXPECT_EQ(score(*reward, "", {1, 2, 1, 2}), -2.0 * (1.0 - 2.0 / 3.0));
  EXPECT_EQ(score(*reward, "", {1}), 0.0);
  EXPECT_FALSE(std::signbit(score(*reward, "", {})));
}

TEST(Repetition, DefaultsAreTrigramsAndMinusOne) {
  const auto reward = build_reward(reward_of("repetition"), 512);
  EXPECT_EQ(score(*reward, "", {1, 2, 1, 2}), 0.0);
  EXPECT_EQ(score(*reward, "", {7, 7, 7, 7}), -0.5);
}

TEST(TokenRewards, SettingsOutOfRangeAreRefusedByKey) {
  const auto refused = [](const recipes::Reward& recipe, const std::string& key) {
    try {
      build_reward(recipe, 512);
    } catch (const UserError& error) {
      return std::string(error.what()).find(key) != std::string::npos;
    }
    return false;
  };
  recipes::Reward length = reward_of("length");
  length.max = 0;
  EXPECT_TRUE(refused(length, "max = 0"));
  length.max = 10;
  length.soft = 11;
  EXPECT_TRUE(refused(length, "soft = 11"));
  recipes::Reward repetition = reward_of("repetition");
  repetition.max_penalty = 0.5;
  EXPECT_TRUE(refused(repetition, "max_penalty"));
  repetition.max_penalty = std::nan("");
  EXPECT_TRUE(refused(repetition, "max_penalty"));
  repetition.max_penalty = -1;
  repetition.ngram = 0;
  EXPECT_TRUE(refused(repetition, "ngram = 0"));
}

}  // namespace
}  // namespace temper::trainer
