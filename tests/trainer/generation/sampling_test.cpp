#include "trainer/generation/sampling.h"

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

std::vector<float> processed(std::vector<float> logits, const std::vector<int32_t>& seen,
                             const SamplingSettings& settings) {
  process_logits(logits, seen, settings);
  return logits;
}

TEST(Sampling, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogitsOnce) {
  const auto logits =
      processed({2.0F, -2.0F, 2.0F, 0.5F}, {0, 1, 1, 0}, {.repetition_penalty = 2.0});
  EXPECT_EQ(logits, (std::vector<float>{1.0F, -4.0F, 2.0F, 0.5F}));
}

TEST(Sampling, GreedyIgnoresWhatOnlyShapesDraws) {
  const auto logits = processed({1.0F, 3.0F}, {}, {.temperature = 0, .top_p = 0.1, .top_k = 1});
  EXPECT_EQ(logits, (std::vector<float>{1.0F, 3.0F}));
}

TEST(Sampling, TopKKeepsAllThatEqualTheKth) {
  const auto logits = processed({1.0F, 3.0F, 2.0F, 2.0F}, {}, {.temperature = 1, .top_k = 2});
  EXPECT_EQ(logits, (std::vector<float>{kRemoved, 3.0F, 2.0F, 2.0F}));
}

TEST(Sampling, TopPDropsTheLeastLikelyThatTogetherReachOneMinusP) {
  // Probabilities 0.5, 0.25, 0.125, 0.125: the two eighths sum to exactly 0.25 = 1 - 0.75 and go.
  const std::vector<float> logits = {std::log(4.0F), std::log(2.0F), 0.0F, 0.0F};
  const auto kept = processed(logits, {}, {.temperature = 1, .top_p = 0.7});
  EXPECT_NE(kept[0], kRemoved);
  EXPECT_NE(kept[1], kRemoved);
  EXPECT_EQ(kept[2], kRemoved);
  EXPECT_EQ(kept[3], kRemoved);
}

TEST(Sampling, TopPAlwaysKeepsTheMostLikely) {
  const auto kept = processed({0.0F, 5.0F}, {}, {.temperature = 1, .top_p = 0.001});
  EXPECT_EQ(kept, (std::vector<float>{kRemoved, 5.0F}));
}

TEST(Sampling, MinPIsRelativeToTheMostLikely) {
  // Relative to the largest: 1, 0.5, 0.2.
  const auto kept =
      processed({0.0F, std::log(0.5F), std::log(0.2F)}, {}, {.temperature = 1, .min_p = 0.3});
  EXPECT_NE(kept[1], kRemoved);
  EXPECT_EQ(kept[2], kRemoved);
}

TEST(Sampling, GreedyTakesTheFirstOfEquals) {
  EXPECT_EQ(greedy_token(std::vector<float>{1, 4, 4, 2}), 1);
}

TEST(Sampling, NanIsARunError) {
  const std::vector<float> logits = {1.0F, NAN, 0.0F};
  EXPECT_THROW(greedy_token(logits), RunError);
  EXPECT_THROW(draw_token(logits, 0, 0), RunError);
}

TEST(Sampling, DrawsAreAFunctionOfSeedAndIndex) {
  const std::vector<float> logits(50, 0.0F);
  int different = 0;
  for (int64_t index = 0; index < 20; ++index) {
    EXPECT_EQ(draw_token(logits, 7, index), draw_token(logits, 7, index));
    different += draw_token(logits, 7, index) != draw_token(logits, 8, index);
  }
  EXPECT_GT(different, 10);
}

TEST(Sampling, DrawsFollowTheProbabilities) {
  const std::vector<float> logits = {std::log(0.6F), kRemoved, std::log(0.3F), std::log(0.1F)};
  std::map<int32_t, int> counts;
  constexpr int kDraws = 20000;
  for (int64_t index = 0; index < kDraws; ++index) ++counts[draw_token(logits, 1, index)];
  EXPECT_EQ(counts.count(1), 0U);
  // Four standard deviations of a binomial of 20000.
  EXPECT_NEAR(counts[0], 12000, 4 * 70);
  EXPECT_NEAR(counts[2], 6000, 4 * 65);
  EXPECT_NEAR(counts[3], 2000, 4 * 43);
}

TEST(Settings, WithoutAFileTheChoiceIsGreedy) {
  EXPECT_EQ(settings_from(nullptr).temperature, 0.0);
}

TEST(Settings, TemperatureCountsOnlyWhereDoSampleIsTrue) {
  EXPECT_EQ(settings_from({{"temperature", 0.6}}).temperature, 0.0);
  EXPECT_EQ(settings_from({{"temperature", 0.6}, {"do_sample", true}}).temperature, 0.6);
  EXPECT_EQ(settings_from({{"do_sample", true}}).temperature, 1.0);
}

TEST(Settings, EosMayBeOneIdOrSeveral) {
  EXPECT_EQ(settings_from({{"eos_token_id", 2}}).eos_ids, (std::vector<int32_t>{2}));
  EXPECT_EQ(settings_from({{"eos_token_id", {5, 9}}}).eos_ids, (std::vector<int32_t>{5, 9}));
  EXPECT_THROW(settings_from({{"eos_token_id", "</s>"}}), UserError);
}

}  // namespace
}  // namespace temper::trainer
