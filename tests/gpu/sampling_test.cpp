// Tokens that are drawn on a device are the CPU's.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/gpu/device.h"
#include "trainer/generation/draws.h"

namespace temper::trainer {
namespace {

// Rows whose logits are all different, equal in part or all alike, and rows that leave out tokens.
at::Tensor rows_to_draw_from(int64_t vocabulary) {
  const at::Tensor all = at::randn({5, vocabulary}) * 3;
  all[1].round_();
  all[2].fill_(0.25);
  all[3].masked_fill_(at::rand({vocabulary}) < 0.7, -std::numeric_limits<double>::infinity());
  all[3][vocabulary / 2] = 1;
  all[4].mul_(100);
  return all;
}

// Two draws of each row, then two more of sequences that have got the first two.
std::vector<Choice> draw_from(const at::Tensor& logits, const SamplingSettings& settings) {
  const int64_t vocabulary = logits.size(1);
  std::vector<SeenTokens> seen(static_cast<size_t>(2 * logits.size(0)));
  std::vector<Choice> all;
  for (int64_t index = 0; index < 2; ++index) {
    std::vector<Draw> draws;
    for (size_t i = 0; i < seen.size(); ++i) {
      const auto sample = static_cast<int64_t>(i);
      if (index == 0) {
        seen[i].ids = {0, static_cast<int32_t>(sample % vocabulary), 0,
                       static_cast<int32_t>(vocabulary + 3)};
      } else {
        seen[i].ids.push_back(all[i].id);
      }
      draws.push_back(
          {.row = sample / 2, .seed = 7, .sample = sample, .index = index, .seen = &seen[i]});
    }
    const std::vector<Choice> some = choose(logits, draws, settings);
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

void expect_same_draws(const at::Tensor& logits, const SamplingSettings& settings,
                       const std::string& what) {
  const std::vector<Choice> expected = draw_from(logits, settings);
  const OnDevice here;
  const std::vector<Choice> found = draw_from(logits.to(test_device()), settings);
  ASSERT_EQ(found.size(), expected.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].id, expected[i].id) << what << ", draw " << i;
    const auto close = [](float x) { return 2e-6 * std::max(1.0f, std::abs(x)); };
    EXPECT_NEAR(found[i].log_prob, expected[i].log_prob, close(expected[i].log_prob))
        << what << ", draw " << i;
    EXPECT_NEAR(found[i].drawn_log_prob, expected[i].drawn_log_prob,
                close(expected[i].drawn_log_prob))
        << what << ", draw " << i;
  }
}

TEST(DeviceSampling, DrawsTheCpusTokens) {
  TEMPER_NEEDS_DEVICE();
  at::manual_seed(3);
  const std::vector<SamplingSettings> all = {
      {},
      {.repetition_penalty = 1.7},
      {.temperature = 1},
      {.temperature = 0.7},
      {.temperature = 1e4},
      {.temperature = 1e-2},
      {.temperature = 1, .top_k = 1},
      {.temperature = 1, .top_k = 5},
      {.temperature = 1, .top_k = 5000},
      {.temperature = 1, .top_p = 0.9},
      {.temperature = 1, .top_p = 0.5},
      {.temperature = 1, .top_p = 1e-6},
      {.temperature = 1, .min_p = 0.05},
      {.temperature = 1, .min_p = 1},
      {.temperature = 1, .repetition_penalty = 0.6},
      {.temperature = 0.8, .top_p = 0.95, .top_k = 20, .min_p = 0.02, .repetition_penalty = 1.2},
  };
  for (const int64_t vocabulary : {1, 30, 1031, 2304}) {
    const at::Tensor logits = rows_to_draw_from(vocabulary);
    for (size_t i = 0; i < all.size(); ++i) {
      expect_same_draws(logits, all[i],
                        "settings " + std::to_string(i) + " of " + std::to_string(vocabulary));
    }
  }
}

// Powers of two: no sum is rounded, and what is cut off lies exactly between equal ones.
TEST(DeviceSampling, CutsBetweenEqualsWhereTheCpuDoes) {
  TEMPER_NEEDS_DEVICE();
  const at::Tensor logits = at::zeros({1, 512});
  for (const double top_p : {0.25, 0.5 + 1.0 / 512, 0.75, 1.0 / 512}) {
    expect_same_draws(logits, {.temperature = 1, .top_p = top_p}, std::to_string(top_p));
  }
  expect_same_draws(logits, {.temperature = 1, .top_k = 3}, "as likely as the third");
}

TEST(DeviceSampling, DrawsFromALargeVocabulary) {
  TEMPER_NEEDS_DEVICE();
  at::manual_seed(3);
  for (const int64_t vocabulary : {128256, 262145}) {
    const at::Tensor logits = at::randn({1, vocabulary}) * 2;
    expect_same_draws(logits, {.temperature = 1}, "all");
    expect_same_draws(logits, {.temperature = 1, .top_p = 0.9, .top_k = 1000}, "some");
  }
}

TEST(DeviceSampling, LogitsThatAreNotFiniteAreFound) {
  TEMPER_NEEDS_DEVICE();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double value : {std::nan(""), infinity}) {
    for (const double temperature : {0.0, 1.0}) {
      const at::Tensor logits = at::zeros({1, 300}).to(test_device());
      logits[0][299].fill_(value);
      const OnDevice here;
      EXPECT_THROW(draw_from(logits, {.temperature = temperature}), RunError) << value;
    }
  }
  const at::Tensor none = at::full({1, 300}, -infinity).to(test_device());
  const OnDevice here;
  EXPECT_THROW(draw_from(none, {.temperature = 1}), RunError);
}

}  // namespace
}  // namespace temper::trainer
