#include "trainer/rollouts/generation_batch.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "trainer/rollouts/balance.h"
#include "trainer/rollouts/metrics.h"

namespace temper::trainer {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Completion `number` of `length` tokens 100 * number, 100 * number + 1, ...
SampledCompletion completion(int32_t number, int32_t length, bool truncated = false) {
  SampledCompletion made;
  made.truncated = truncated;
  made.scores = {static_cast<float>(number), kNan};
  for (int32_t i = 0; i < length; ++i) {
    made.ids.push_back(100 * number + i);
    made.sampling_log_probs.push_back(-0.01f * static_cast<float>(100 * number + i));
    made.old_log_probs.push_back(-0.02f * static_cast<float>(100 * number + i));
  }
  made.advantage = static_cast<float>(number);
  return made;
}

// Two prompts of two completions each in slice 0, and one in slice 1.
SampledGroups three_groups() {
  return {
      {.slice = 0,
       .place = 0,
       .prompt = {1, 2, 3},
       .completions = {completion(1, 2), completion(2, 3)}},
      {.slice = 0,
       .place = 1,
       .prompt = {4, 5},
       .completions = {completion(3, 1), completion(4, 4, true)}},
      {.slice = 1, .place = 0, .prompt = {6}, .completions = {completion(5, 2), completion(6, 1)}}};
}

std::vector<int64_t> longs(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
}
std::vector<float> floats(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<float>(), tensor.const_data_ptr<float>() + tensor.numel()};
}

TEST(GenerationBatch, ComesBackFromItsFlatForm) {
  SampledGroups groups = three_groups();
  groups[1].left_out = true;
  const SampledGroups back = unpack(pack(groups));
  ASSERT_EQ(back.size(), 3u);
  EXPECT_TRUE(back[1].left_out);
  EXPECT_EQ(back[2].slice, 1);
  EXPECT_EQ(back[1].prompt, groups[1].prompt);
  for (size_t g = 0; g < back.size(); ++g) {
    for (size_t c = 0; c < 2; ++c) {
      const SampledCompletion &was = groups[g].completions[c], &is = back[g].completions[c];
      EXPECT_EQ(is.ids, was.ids);
      EXPECT_EQ(is.truncated, was.truncated);
      EXPECT_EQ(is.sampling_log_probs, was.sampling_log_probs);
      EXPECT_EQ(is.old_log_probs, was.old_log_probs);
      EXPECT_TRUE(is.reference_log_probs.empty());
      EXPECT_EQ(is.scores.at(0), was.scores.at(0));
      EXPECT_TRUE(std::isnan(is.scores.at(1)));
      EXPECT_EQ(is.advantage, was.advantage);
    }
  }
  EXPECT_TRUE(unpack(pack({})).empty());
}

TEST(GenerationBatch, MicroBatchesShareAPromptAndKeepNumbersBesideTheirTargets) {
  const std::vector<data::Batch> batches =
      micro_batches(three_groups(), 0, 0, 1, {.micro = 4, .temperature = 0.7});
  ASSERT_EQ(batches.size(), 1u);
  const data::Batch& batch = batches[0];
  EXPECT_EQ(batch.rows, 4);
  // Each prompt once: 3 + 2 + 3 and 2 + 1 + 4 tokens.
  EXPECT_EQ(batch.token_ids.size(1), 15);
  EXPECT_EQ(longs(batch.targets.labels),
            (std::vector<int64_t>{100, 101, 200, 201, 202, 300, 400, 401, 402, 403}));
  EXPECT_EQ(longs(batch.targets.ends), (std::vector<int64_t>{0, 2, 5, 6, 10}));
  EXPECT_EQ(floats(batch.rollout.advantages), (std::vector<float>{1, 2, 3, 4}));
  const std::vector<float> old = floats(batch.rollout.old_log_probs);
  for (size_t i = 0; i < old.size(); ++i) {
    EXPECT_EQ(old[i], -0.02f * static_cast<float>(longs(batch.targets.labels)[i]));
  }
  EXPECT_EQ(floats(batch.rollout.sampling_log_probs).size(), 10u);
  EXPECT_FALSE(batch.reference_log_probs.defined());
  EXPECT_EQ(batch.rollout.temperature, 0.7);
  EXPECT_EQ(batch.rollout.mean_tokens, 13.0 / 6);  // of all slices
}

// Advantages of each micro-batch, by which completions are known here.
std::vector<std::vector<float>> parts_of(const SampledGroups& groups, int32_t slice, int rank,
                                         int ranks, int64_t micro) {
  std::vector<std::vector<float>> parts;
  for (const data::Batch& batch : micro_batches(groups, slice, rank, ranks, {.micro = micro})) {
    parts.push_back(floats(batch.rollout.advantages));
  }
  return parts;
}

TEST(GenerationBatch, MicroBatchesAreTheSameForAnyNumberOfRanks) {
  for (const int64_t micro : {1, 2, 3}) {
    const auto of_one = parts_of(three_groups(), 0, 0, 1, micro);
    for (const int ranks : {2, 3, 4}) {
      std::vector<std::vector<float>> parts;
      for (int rank = 0; rank < ranks; ++rank) {
        for (auto& part : parts_of(three_groups(), 0, rank, ranks, micro)) parts.push_back(part);
      }
      std::sort(parts.begin(), parts.end());  // advantages rise with the place
      EXPECT_EQ(parts, of_one) << "micro " << micro << ", " << ranks << " ranks";
    }
  }
}

TEST(GenerationBatch, RanksHaveAboutAsManyTokensAPromptCountedOnce) {
  SampledGroups groups;
  for (const auto& [first, second] : {std::pair{8, 8}, {1, 10}, {2, 2}, {7, 7}}) {
    const auto number = static_cast<int32_t>(2 * groups.size());
    groups.push_back({.prompt = {1, 2},
                      .completions = {completion(number, first), completion(number + 1, second)}});
  }
  // Runs of 18, 13, 6 and 16 tokens: 18 + 6 and 16 + 13.
  using Parts = std::vector<std::vector<float>>;
  EXPECT_EQ(parts_of(groups, 0, 0, 2, 2), (Parts{{0, 1}, {4, 5}}));
  EXPECT_EQ(parts_of(groups, 0, 1, 2, 2), (Parts{{2, 3}, {6, 7}}));
}

TEST(GenerationBatch, ASliceWithoutCompletionsHasNoMicroBatches) {
  for (int rank = 0; rank < 2; ++rank) EXPECT_TRUE(parts_of(three_groups(), 7, rank, 2, 2).empty());
}

TEST(Balance, GivesTheHeaviestFirstToTheLeastLoadedThatHasRoom) {
  using Parts = std::vector<std::vector<int64_t>>;
  const std::vector<int64_t> costs = {9, 1, 1, 1, 8, 7};
  EXPECT_EQ(balance(costs, 1), (Parts{{0, 1, 2, 3, 4, 5}}));
  EXPECT_EQ(balance(costs, 2), (Parts{{0, 1, 2}, {3, 4, 5}}));  // three each, at the price of tokens
  EXPECT_EQ(balance(costs, 3), (Parts{{0, 3}, {2, 4}, {1, 5}}));
  const std::vector<int64_t> equal(4, 5);
  EXPECT_EQ(balance(equal, 2), (Parts{{0, 2}, {1, 3}}));
  EXPECT_EQ(balance({}, 2), (Parts{{}, {}}));
  EXPECT_EQ(balance(equal, 6), (Parts{{0}, {1}, {2}, {3}, {}, {}}));
}

TEST(GenerationBatch, MaskedCompletionsHaveNoTargetsButStillCount) {
  const CompletionLayout layout{.micro = 4, .mask_truncated = true};
  const data::Batch batch = micro_batches(three_groups(), 0, 0, 1, layout).at(0);
  EXPECT_EQ(longs(batch.targets.ends), (std::vector<int64_t>{0, 2, 5, 6, 6}));
  EXPECT_EQ(batch.rollout.advantages.numel(), 4);
  EXPECT_EQ(batch.rollout.old_log_probs.numel(), 6);
  EXPECT_EQ(batch.rollout.mean_tokens, 9.0 / 6);
}

TEST(GenerationBatch, AGroupOfEqualMaskedCompletionsIsABatchWithoutTargets) {
  const SampledGroups groups = {
      {.prompt = {1, 2}, .completions = {completion(1, 2, true), completion(1, 2, true)}}};
  const data::Batch batch =
      micro_batches(groups, 0, 0, 1, {.micro = 2, .mask_truncated = true}).at(0);
  EXPECT_EQ(batch.targets.labels.numel(), 0);
  const auto* ends = batch.document_ends.const_data_ptr<int32_t>();
  for (int64_t d = 0; d + 1 < batch.document_ends.numel(); ++d) EXPECT_LT(ends[d], ends[d + 1]);
}

TEST(GenerationBatch, WhatIsLeftOutIsNotTrainedOn) {
  SampledGroups groups = three_groups();
  groups[0].left_out = true;
  const std::vector<data::Batch> batches = micro_batches(groups, 0, 0, 1, {.micro = 4});
  ASSERT_EQ(batches.size(), 1u);
  EXPECT_EQ(floats(batches[0].rollout.advantages), (std::vector<float>{3, 4}));
  EXPECT_EQ(batches[0].rollout.mean_tokens, 8.0 / 4);
  groups[1].left_out = true;
  EXPECT_TRUE(micro_batches(groups, 0, 0, 1, {.micro = 4}).empty());
}

TEST(GenerationBatch, LengthsAreThoseOfAllAndOfThoseThatEnded) {
  std::vector<std::pair<std::string, double>> found;
  for (const MetricSum& metric : length_metrics(three_groups())) {
    found.emplace_back(metric.name, metric.numerator / metric.denominator);
  }
  const std::vector<std::pair<std::string, double>> expected = {
      {"completions/mean_length", 13.0 / 6},
      {"completions/min_length", 1},
      {"completions/max_length", 4},
      {"completions/clipped_ratio", 1.0 / 6},
      {"completions/mean_terminated_length", 9.0 / 5},
      {"completions/min_terminated_length", 1},
      {"completions/max_terminated_length", 3}};
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace temper::trainer
