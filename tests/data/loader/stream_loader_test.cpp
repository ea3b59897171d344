#include "data/loader/stream_loader.h"

#include <set>

#include <gtest/gtest.h>

#include "tests/data/loader/made_rows.h"

namespace temper::data {
namespace {

using recipes::Packing;

class Stream : public testing::Test {
 protected:
  // `count` rows of 1 + i % 7 tokens; the tokens of row i begin at first + 10 i.
  recipes::DataSource rows(const std::string& name, int64_t count, int64_t first = 1) const {
    std::string content;
    for (int64_t i = 0; i < count; ++i) content += row_text(first + 10 * i, 2 + i % 7);
    return source(name, content);
  }
  recipes::DataSource source(const std::string& name, const std::string& content) const {
    return {.path = directory.file(name, content).string(), .weight = 1, .columns = {}};
  }
  StreamLoader open(const std::vector<recipes::DataSource>& sources,
                    const LoaderOptions& how) const {
    return StreamLoader(sources, made_rows(), prepare, how, window_rows);
  }
  // Of all ranks, in their order.
  std::vector<std::vector<int64_t>> steps(const std::vector<recipes::DataSource>& sources,
                                          LoaderOptions how, int64_t ranks, int64_t count) const {
    std::vector<std::vector<int64_t>> result(static_cast<size_t>(count));
    how.ranks = ranks;
    for (how.rank = 0; how.rank < ranks; ++how.rank) {
      StreamLoader loader = open(sources, how);
      for (int64_t k = 0; k < count; ++k) {
        const std::vector<int64_t> part = checked_tokens(loader.step(k));
        result[static_cast<size_t>(k)].insert(result[static_cast<size_t>(k)].end(), part.begin(),
                                              part.end());
      }
    }
    return result;
  }
  static LoaderOptions small(Packing packing = Packing::kBfd) {
    return {.global = 8, .micro = 2, .max_length = 10, .packing = packing};
  }

  TemporaryDirectory directory;
  PrepareOptions prepare{.cache = "", .max_length = 10};
  int64_t window_rows = 16;
};

TEST_F(Stream, AStepHoldsTheSameRowsInTheSameOrderOnAnyNumberOfRanksAndThreads) {
  const std::vector<recipes::DataSource> sources = {rows("a.jsonl", 45), rows("b.jsonl", 30, 1000)};
  for (const Packing packing : {Packing::kNone, Packing::kBfd, Packing::kWrapped}) {
    const auto alone = steps(sources, small(packing), 1, 20);
    EXPECT_EQ(steps(sources, small(packing), 2, 20), alone);
    prepare.workers = 3;
    EXPECT_EQ(steps(sources, small(packing), 4, 20), alone);
  }
}

TEST_F(Stream, GoesOnAtAnyStepFromItsState) {
  const std::vector<recipes::DataSource> sources = {
      rows("a.jsonl", 45), source("b.csv", "first,tokens\n1000,3\n1010,9\n")};
  StreamLoader through = open(sources, small());
  std::vector<std::string> states = {through.state().dump()};
  std::vector<std::vector<int64_t>> expected;
  for (int64_t step = 0; step < 25; ++step) {
    expected.push_back(checked_tokens(through.step(step)));
    states.push_back(through.state().dump());
  }
  for (int64_t step = 0; step < 25; ++step) {
    StreamLoader resumed = open(sources, small());
    resumed.restore(Json::parse(states[static_cast<size_t>(step)]));
    for (int64_t k = step; k < std::min<int64_t>(step + 4, 25); ++k) {
      ASSERT_EQ(checked_tokens(resumed.step(k)), expected[static_cast<size_t>(k)]) << step;
    }
    EXPECT_EQ(resumed.state().dump(), states[static_cast<size_t>(std::min<int64_t>(step + 4, 25))]);
  }
}

TEST_F(Stream, WithoutShuffleRowsComeInTheOrderOfTheFileAgainAndAgain) {
  LoaderOptions how = small(Packing::kNone);
  how.shuffle = false;
  StreamLoader loader = open({rows("a.jsonl", 20)}, how);
  std::vector<int64_t> firsts;
  for (int64_t step = 0; step < 5; ++step) {
    for (const int64_t token : checked_tokens(loader.step(step))) {
      if (token % 10 == 1) firsts.push_back(token / 10);
    }
  }
  for (size_t i = 0; i < firsts.size(); ++i) EXPECT_EQ(firsts[i], static_cast<int64_t>(i % 20));
  EXPECT_EQ(firsts.size(), 40U);
}

TEST_F(Stream, TakesSourcesInTheSharesOfTheirWeights) {
  recipes::DataSource many = rows("a.jsonl", 10), few = rows("b.jsonl", 500, 10001);
  many.weight = 3;
  LoaderOptions how = small(Packing::kNone);
  how.shuffle = false;
  StreamLoader loader = open({many, few}, how);
  int64_t of_many = 0, of_few = 0;
  for (int64_t step = 0; step < 10; ++step) {
    for (const int64_t token : checked_tokens(loader.step(step))) {
      if (token % 10 == 1) ++(token > 10000 ? of_few : of_many);
    }
  }
  EXPECT_EQ(of_many, 60);
  EXPECT_EQ(of_few, 20);
}

TEST_F(Stream, ShufflesWithinAWindowAndTheFilesOfAPass) {
  for (int i = 0; i < 6; ++i) rows("many/" + std::to_string(i) + ".jsonl", 16, 1 + 1000 * i);
  const recipes::DataSource source{
      .path = (directory.path() / "many").string(), .weight = 1, .columns = {}};
  LoaderOptions how = small(Packing::kNone);
  how.global = 16;  // a window, a file
  StreamLoader loader = open({source}, how);
  std::vector<std::vector<int64_t>> orders;
  for (int64_t pass = 0; pass < 2; ++pass) {
    std::set<int64_t> files;
    for (int64_t step = 0; step < 6; ++step) {
      const std::vector<int64_t> tokens = checked_tokens(loader.step(6 * pass + step));
      EXPECT_FALSE(std::is_sorted(tokens.begin(), tokens.end()));
      files.insert(tokens.front() / 1000);
      orders.push_back(tokens);
    }
    EXPECT_EQ(files.size(), 6U);
  }
  EXPECT_NE(std::vector(orders.begin(), orders.begin() + 6),
            std::vector(orders.begin() + 6, orders.end()));
}

TEST_F(Stream, TellsABadRowByItsLineWhenItComes) {
  std::string content;
  for (int i = 0; i < 3000; ++i) content += row_text(1 + 10 * i, 5);
  content += std::string(2 << 20, ' ') + "\n" + row_text(0, 5) + row_text(50001, 5);
  window_rows = 1000;
  StreamLoader loader = open({source("a.jsonl", content)}, small(Packing::kNone));
  std::string found;
  try {
    for (int64_t step = 0; step < 1000; ++step) loader.step(step);
  } catch (const UserError& error) {
    found = error.lines().front();
  }
  EXPECT_NE(found.find("a.jsonl:3002: begins with 0"), std::string::npos) << found;

  prepare.on_bad_row = recipes::OnBadRow::kSkip;
  StreamLoader skipping = open({source("a.jsonl", content)}, small(Packing::kNone));
  for (int64_t step = 0; step < 375; ++step) skipping.step(step);
  EXPECT_EQ(checked_tokens(skipping.step(375)).size(), 40U);
}

TEST_F(Stream, RefusesSourcesWithoutARowToTrainOn) {
  prepare.on_bad_row = recipes::OnBadRow::kSkip;
  EXPECT_THROW(open({source("a.jsonl", row_text(0, 1))}, small()), UserError);
  EXPECT_THROW(open({source("b.jsonl", "\n")}, small()), UserError);
}

TEST_F(Stream, TheFirstWindowsAreSmall) {
  prepare.on_long_row = recipes::OnLongRow::kTruncate;
  window_rows = 100000;
  std::string content;
  for (int i = 0; i < 5000; ++i) content += row_text(1 + 10 * i, 5);
  EXPECT_EQ(open({source("short.jsonl", content)}, small()).first_rows().rows, 1024);
  content.clear();
  for (int i = 0; i < 5000; ++i) content += row_text(1, 5000);
  EXPECT_EQ(open({source("long.jsonl", content)}, small()).first_rows().rows, 256);
}

}  // namespace
}  // namespace temper::data
