#include "data/loader/loader.h"

#include <algorithm>
#include <filesystem>

#include <unistd.h>

#include <gtest/gtest.h>

#include "data/loader/eval_loader.h"
#include "data/shards/token_dataset.h"

namespace temper::data {
namespace {

using recipes::Packing;

// Rows of 1 + i % 7 tokens, each token its own number, so that a batch tells where every token came
// from.
std::shared_ptr<const TokenDataset> numbered_rows(int64_t rows) {
  TokenShardWriter writer;
  std::vector<TokenDataset::Piece> pieces;
  int64_t token = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t length = 1 + i % 7;
    Example example;
    pieces.push_back({.start = token,
                      .length = static_cast<int32_t>(length),
                      .shard = 0,
                      .row = static_cast<int32_t>(i)});
    for (int64_t t = 0; t < length; ++t) {
      example.ids.push_back(static_cast<int32_t>(++token));
      example.supervised.push_back(1);
    }
    writer.add({.documents = {std::move(example)}, .columns = {}}, i + 1);
  }
  const std::filesystem::path path = std::filesystem::temp_directory_path() /
                                     ("temper-loader-" + std::to_string(::getpid()) + ".h5");
  writer.write(path);
  auto shard = std::make_shared<const TokenShard>(path);
  std::filesystem::remove(path);  // the mapping keeps it
  return std::make_shared<const TokenDataset>(std::vector{shard}, std::move(pieces), 1024);
}

LoaderOptions small(Packing packing = Packing::kNone) {
  return {.global = 8, .micro = 2, .max_length = 10, .packing = packing};
}

std::vector<int64_t> tokens(const Batch& batch) {
  std::vector<int64_t> result;
  const int64_t* data = batch.token_ids.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < batch.token_ids.numel(); ++i) {
    if (data[i] != 0) result.push_back(data[i]);
  }
  return result;
}

// What one step holds, in global order, over all ranks.
std::vector<int64_t> step_tokens(const std::shared_ptr<const TokenDataset>& dataset,
                                 LoaderOptions options, int64_t ranks, int64_t step) {
  std::vector<int64_t> result;
  options.ranks = ranks;
  for (options.rank = 0; options.rank < ranks; ++options.rank) {
    DataLoader loader(dataset, options);
    for (const Batch& batch : loader.step(step).micro_batches) {
      const std::vector<int64_t> part = tokens(batch);
      result.insert(result.end(), part.begin(), part.end());
    }
  }
  return result;
}

TEST(DataLoader, AnEpochHoldsEveryTokenOnce) {
  const auto dataset = numbered_rows(101);
  int64_t total = 0;
  for (int64_t i = 0; i < dataset->size(); ++i) total += dataset->length(i);
  for (const Packing packing : {Packing::kNone, Packing::kBfd, Packing::kWrapped}) {
    DataLoader loader(dataset, small(packing));
    for (const int64_t epoch : {0, 1}) {
      std::vector<int64_t> seen;
      for (int64_t k = 0; k < loader.steps_per_epoch(); ++k) {
        for (const Batch& batch : loader.step(epoch * loader.steps_per_epoch() + k).micro_batches) {
          const std::vector<int64_t> part = tokens(batch);
          seen.insert(seen.end(), part.begin(), part.end());
        }
      }
      std::sort(seen.begin(), seen.end());
      ASSERT_EQ(static_cast<int64_t>(seen.size()), total);
      for (int64_t i = 0; i < total; ++i) ASSERT_EQ(seen[static_cast<size_t>(i)], i + 1);
    }
  }
}

TEST(DataLoader, AStepHoldsTheSameRowsInTheSameOrderOnAnyNumberOfRanks) {
  const auto dataset = numbered_rows(45);  // 6 steps; the last has 5 rows
  for (int64_t step = 0; step < 12; ++step) {
    const std::vector<int64_t> alone = step_tokens(dataset, small(), 1, step);
    EXPECT_FALSE(alone.empty());
    EXPECT_EQ(step_tokens(dataset, small(), 2, step), alone) << step;
    EXPECT_EQ(step_tokens(dataset, small(), 4, step), alone) << step;
  }
}

TEST(DataLoader, AShortLastStepGivesTheLastRanksNothing) {
  const auto dataset = numbered_rows(9);
  LoaderOptions options = small();
  options.ranks = 4;
  options.shuffle = false;
  std::vector<size_t> batches;
  for (options.rank = 0; options.rank < 4; ++options.rank) {
    batches.push_back(DataLoader(dataset, options).step(1).micro_batches.size());
  }
  EXPECT_EQ(batches, (std::vector<size_t>{1, 0, 0, 0}));
}

TEST(DataLoader, WithoutShuffleStepKTakesRowsKTimesGlobalInFileOrder) {
  const auto dataset = numbered_rows(20);
  LoaderOptions options = small();
  options.shuffle = false;
  const std::vector<int64_t> second = step_tokens(dataset, options, 2, 1);
  std::vector<int64_t> expected;
  for (int64_t i = 8; i < 16; ++i) {
    for (const int32_t id : dataset->example(i).ids) expected.push_back(id);
  }
  EXPECT_EQ(second, expected);
}

TEST(DataLoader, ResumesAtAnyStepWithTheSameBatches) {
  const auto dataset = numbered_rows(45);
  DataLoader through(dataset, small(Packing::kBfd));
  for (int64_t step = 0; step < 3 * through.steps_per_epoch(); ++step) {
    const StepBatches expected = through.step(step);
    DataLoader resumed(dataset, small(Packing::kBfd));
    const StepBatches found = resumed.step(step);
    ASSERT_EQ(found.micro_batches.size(), expected.micro_batches.size());
    for (size_t i = 0; i < found.micro_batches.size(); ++i) {
      EXPECT_EQ(tokens(found.micro_batches[i]), tokens(expected.micro_batches[i]));
    }
  }
}

TEST(DataLoader, EpochsDifferAndSeedsDiffer) {
  const auto dataset = numbered_rows(40);
  LoaderOptions other = small();
  other.seed = 43;
  EXPECT_NE(step_tokens(dataset, small(), 1, 0), step_tokens(dataset, small(), 1, 5));
  EXPECT_NE(step_tokens(dataset, small(), 1, 0), step_tokens(dataset, other, 1, 0));
}

TEST(DataLoader, GroupsRowsOfSimilarLengthOnAnyNumberOfRanks) {
  const auto dataset = numbered_rows(445);  // 56 steps; the last has 5 rows
  LoaderOptions options = small();
  LoaderOptions grouped = options;
  grouped.group_by_length = true;
  const auto padding = [&](const LoaderOptions& how) {
    int64_t count = 0;
    DataLoader loader(dataset, how);
    for (int64_t k = 0; k < loader.steps_per_epoch(); ++k) {
      for (const Batch& batch : loader.step(k).micro_batches)
        count += batch.token_ids.numel() - batch.input_tokens;
    }
    return count;
  };
  EXPECT_LT(10 * padding(grouped), padding(options));
  for (const int64_t step : {0, 17, 49, 50, 55, 56, 111}) {
    const std::vector<int64_t> alone = step_tokens(dataset, grouped, 1, step);
    EXPECT_EQ(step_tokens(dataset, grouped, 4, step), alone) << step;
  }
  EXPECT_NE(step_tokens(dataset, grouped, 1, 3), step_tokens(dataset, grouped, 1, 59));
  // Not from the longest to the shortest.
  std::vector<size_t> tokens_of_steps;
  for (int64_t step = 0; step < 50; ++step)
    tokens_of_steps.push_back(step_tokens(dataset, grouped, 1, step).size());
  EXPECT_FALSE(std::is_sorted(tokens_of_steps.rbegin(), tokens_of_steps.rend()));
}

TEST(DataLoader, CountsStepsWithAndWithoutTheShortLastOne) {
  LoaderOptions options = small();
  EXPECT_EQ(DataLoader(numbered_rows(45), options).steps_per_epoch(), 6);
  options.drop_last = true;
  EXPECT_EQ(DataLoader(numbered_rows(45), options).steps_per_epoch(), 5);
  EXPECT_EQ(DataLoader(numbered_rows(7), options).steps_per_epoch(), 0);
}

TEST(EvalLoader, GivesEachMicroBatchToOneRankInFileOrder) {
  const auto dataset = numbered_rows(9);
  LoaderOptions options = small();
  options.ranks = 2;
  std::vector<std::vector<int64_t>> first_tokens(2);
  for (options.rank = 0; options.rank < 2; ++options.rank) {
    EvalLoader loader(dataset, options);
    Batch batch;
    while (loader.next(batch)) {
      first_tokens[static_cast<size_t>(options.rank)].push_back(tokens(batch).front());
    }
  }
  // Rows start at tokens 1, 2, 4, 7, 11, 16, 22, 29, 30; micro-batches at rows 0, 2, 4, 6, 8.
  EXPECT_EQ(first_tokens[0], (std::vector<int64_t>{1, 11, 30}));
  EXPECT_EQ(first_tokens[1], (std::vector<int64_t>{4, 22}));
}

}  // namespace
}  // namespace temper::data
