#include "trainer/generation/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>
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

// Forty tokens whose logits fall slowly, in an order that has nothing to do with their ids.
std::vector<float> many_logits() {
  std::vector<float> logits(40);
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i * 17 % logits.size()] = 3.0F - 0.11F * static_cast<float>(i);
  return logits;
}

// The definitions in double precision, over tokens sorted by probability.
std::vector<double> exact_distribution(const std::vector<float>& logits,
                                       const SamplingSettings& settings) {
  std::vector<std::pair<double, size_t>> sorted;
  double total = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    sorted.emplace_back(std::exp(logits[i] / settings.temperature), i);
    total += sorted.back().first;
  }
  std::sort(sorted.rbegin(), sorted.rend());
  std::vector<double> result(logits.size());
  double before = 0, kept = 0;
  for (size_t rank = 0; rank < sorted.size(); ++rank) {
    const double p = sorted[rank].first / total;
    const bool stays = (settings.top_k == 0 || rank < static_cast<size_t>(settings.top_k)) &&
                       before < settings.top_p && p >= settings.min_p * sorted[0].first / total;
    before += p;
    if (!stays) continue;
    result[sorted[rank].second] = p;
    kept += p;
  }
  for (double& p : result) p /= kept;
  return result;
}

// Pearson's statistic of 20,000 draws, sum (observed - expected)^2 / expected, has a chi-square
// distribution with one degree of freedom less than there are tokens. The bound is its quantile at
// 1 - 1e-4 (Wilson and Hilferty: n (1 - 2 / (9 n) + 3.72 sqrt(2 / (9 n)))^3); the seeds are fixed,
// so a test that passes always passes.
void expect_draws_follow(const SamplingSettings& settings, bool over_samples) {
  constexpr int kDraws = 20000;
  const std::vector<float> logits = many_logits();
  const std::vector<double> expected = exact_distribution(logits, settings);
  std::vector<int> observed(logits.size());
  for (int64_t i = 0; i < kDraws; ++i) {
    const Choice choice = choose(logits, {}, settings, /*seed=*/5, /*sample=*/over_samples ? i : 2,
                                 /*index=*/over_samples ? 3 : i);
    ++observed[static_cast<size_t>(choice.id)];
    ASSERT_NEAR(choice.drawn_log_prob, std::log(expected[static_cast<size_t>(choice.id)]), 1e-5);
  }
  double statistic = 0, n = -1;
  for (size_t id = 0; id < expected.size(); ++id) {
    if (expected[id] == 0) {
      EXPECT_EQ(observed[id], 0) << id;
      continue;
    }
    const double mean = expected[id] * kDraws;
    ASSERT_GT(mean, 5) << "too rare for the statistic";
    statistic += (observed[id] - mean) * (observed[id] - mean) / mean;
    n += 1;
  }
  ASSERT_GT(n, 2);
  EXPECT_LT(statistic, n * std::pow(1 - 2 / (9 * n) + 3.72 * std::sqrt(2 / (9 * n)), 3)) << n;
}

TEST(Sampling, DrawsFollowTheDistributionOfEverySetting) {
  for (const bool over_samples : {false, true}) {
    for (const SamplingSettings& settings :
         {SamplingSettings{.temperature = 1.0}, SamplingSettings{.temperature = 0.7},
          SamplingSettings{.temperature = 1.4}, SamplingSettings{.temperature = 1.0, .top_k = 7},
          SamplingSettings{.temperature = 1.0, .top_p = 0.63},
          SamplingSettings{.temperature = 1.0, .min_p = 0.21}}) {
      SCOPED_TRACE(testing::Message() << settings.temperature << " " << settings.top_k << " "
                                      << settings.top_p << " " << settings.min_p);
      expect_draws_follow(settings, over_samples);
    }
  }
}

// More than a block of exponentials, with nothing to draw in whole blocks and at the end.
TEST(Sampling, OnlyWhatIsLeftIsDrawnInALargeVocabulary) {
  std::vector<float> logits(5000, kRemoved);
  for (const size_t id : {300U, 1999U, 2000U, 4100U}) logits[id] = 1.0F;
  std::map<int32_t, int> counts;
  for (int64_t index = 0; index < 4000; ++index) ++counts[draw_token(logits, 3, index)];
  ASSERT_EQ(counts.size(), 4U);
  // Four standard deviations of a binomial of 4000.
  for (const int32_t id : {300, 1999, 2000, 4100}) EXPECT_NEAR(counts[id], 1000, 110) << id;
}

TEST(Sampling, TopPOfALargeVocabularyKeepsWhatSortingAllOfItKeeps) {
  std::vector<float> logits(20000);
  for (size_t i = 0; i < logits.size(); ++i)
    logits[i * 7919 % logits.size()] = 12.0F - 0.002F * static_cast<float>(i);
  const auto kept = processed(logits, {}, {.temperature = 1, .top_p = 0.95});
  // Probabilities fall geometrically: 1 - exp(-0.002 n) = 0.95.
  const auto count = std::count_if(kept.begin(), kept.end(), [](float l) { return l != kRemoved; });
  EXPECT_NEAR(static_cast<double>(count), std::log(20.0) / 0.002, 2);
  const float lowest = 12.0F - 0.002F * static_cast<float>(count - 1);
  for (size_t i = 0; i < logits.size(); ++i)
    EXPECT_EQ(kept[i] != kRemoved, logits[i] > lowest - 1e-3F);
}

TEST(Sampling, AChoiceKnowsItsLogProbabilityWithAndWithoutWhatShapedIt) {
  const std::vector<float> logits = {std::log(0.6F), std::log(0.3F), std::log(0.1F)};
  const Choice greedy = choose(logits, {}, {.temperature = 0}, 0, 0, 0);
  EXPECT_EQ(greedy.id, 0);
  EXPECT_NEAR(greedy.log_prob, std::log(0.6), 1e-6);
  EXPECT_EQ(greedy.drawn_log_prob, 0.0F);
  const Choice penalised = choose(logits, std::vector<int32_t>{0},
                                  {.temperature = 0, .repetition_penalty = 10}, 0, 0, 0);
  EXPECT_EQ(penalised.id, 1);
  EXPECT_NEAR(penalised.log_prob, std::log(0.3), 1e-6);
  const Choice only = choose(logits, {}, {.temperature = 1, .top_k = 1}, 0, 0, 0);
  EXPECT_NEAR(only.log_prob, std::log(0.6), 1e-6);
  EXPECT_EQ(only.drawn_log_prob, 0.0F);
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
