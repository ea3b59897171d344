// Tokens are conserved: whatever the chunks, sources, threads and ranks, what is in the rows is in
// the batches of an epoch, once, with its mask.

#include <thread>

#include <gtest/gtest.h>

#include "data/loader/stream_loader.h"
#include "data/shards/token_dataset.h"
#include "tests/data/loader/made_rows.h"

namespace temper::data {
namespace {

using recipes::Packing;

struct Layout {
  PrepareOptions prepare;
  LoaderOptions loader;
  std::vector<recipes::DataSource> sources;
  std::vector<int64_t> tokens;  // of all rows, sorted
  int64_t rows = 0;

  std::string text() const {
    return "chunks of " + std::to_string(prepare.chunk_bytes) + " bytes, " +
           std::to_string(sources.size()) + " sources, " + std::to_string(prepare.workers) +
           " threads, " + std::to_string(prepare.ranks) + " ranks, packing " +
           std::to_string(static_cast<int>(loader.packing));
  }
};

Layout random_layout(uint64_t seed, const TemporaryDirectory& directory) {
  std::mt19937_64 random(seed);
  const auto draw = [&](int64_t low, int64_t high) {
    return low + static_cast<int64_t>(random() % static_cast<uint64_t>(high - low + 1));
  };
  const int64_t ranks = int64_t{1} << draw(0, 2), micro = draw(1, 3);
  Layout layout;
  layout.prepare = {.cache = directory.path() / "cache",
                    .max_length = 24,
                    .chunk_bytes = draw(20, 900),
                    .workers = draw(1, 3),
                    .ranks = static_cast<int>(ranks)};
  layout.loader = {.global = ranks * micro * draw(1, 3),
                   .micro = micro,
                   .ranks = ranks,
                   .shuffle = draw(0, 3) > 0,
                   .seed = draw(0, 99),
                   .max_length = 24,
                   .packing = static_cast<Packing>(draw(0, 3)),
                   .packing_window = draw(1, 60)};
  const bool splits =
      layout.loader.packing == Packing::kBfdSplit || layout.loader.packing == Packing::kWrapped;
  layout.prepare.packing_splits = splits;
  layout.loader.group_by_length = layout.loader.packing == Packing::kNone && layout.loader.shuffle;
  int64_t next = 1;
  for (int64_t s = draw(1, 3); s > 0; --s) {
    const std::string folder = "source" + std::to_string(s);
    for (int64_t f = draw(1, 3); f > 0; --f) {
      const bool array = draw(0, 2) == 0;  // not cut at lines: one chunk, several shards
      std::string content = array ? "[" : "";
      for (int64_t r = draw(1, 40); r > 0; --r) {
        const int64_t length = draw(2, splits ? 90 : 24);
        content += (array && content.size() > 1 ? "," : "") + row_text(next, length);
        for (int64_t t = 0; t < length; ++t) layout.tokens.push_back(next++);
        ++next;  // so that no row begins where another ends
        ++layout.rows;
      }
      directory.file(folder + "/" + std::to_string(f) + (array ? ".json" : ".jsonl"),
                     content + (array ? "]" : ""));
    }
    layout.sources.push_back(
        {.path = (directory.path() / folder).string(), .weight = 1, .columns = {}});
  }
  return layout;
}

TEST(Conservation, AnEpochHoldsEveryTokenOnceWithItsMask) {
  for (uint64_t seed = 0; seed < 60; ++seed) {
    const TemporaryDirectory directory;
    const Layout layout = random_layout(seed, directory);
    SCOPED_TRACE(std::to_string(seed) + ": " + layout.text());
    std::vector<std::shared_ptr<const TokenDataset>> datasets(
        static_cast<size_t>(layout.prepare.ranks));
    std::vector<std::thread> ranks;
    for (int rank = 0; rank < layout.prepare.ranks; ++rank) {
      ranks.emplace_back([&, rank] {
        PrepareOptions own = layout.prepare;
        own.rank = rank;
        PrepareReport report;
        datasets[static_cast<size_t>(rank)] = prepare(layout.sources, made_rows(), own, &report);
        EXPECT_EQ(report.tokens, std::ssize(layout.tokens));
        EXPECT_EQ(report.tokens_cut, 0);
        EXPECT_EQ(report.rows, layout.rows);
      });
    }
    for (std::thread& rank : ranks) rank.join();
    for (const int64_t epoch : {0, 1}) {
      std::vector<int64_t> seen;
      for (int rank = 0; rank < layout.prepare.ranks; ++rank) {
        LoaderOptions own = layout.loader;
        own.rank = rank;
        DataLoader loader(datasets[static_cast<size_t>(rank)], own);
        for (int64_t k = 0; k < loader.steps_per_epoch(); ++k) {
          const std::vector<int64_t> part =
              checked_tokens(loader.step(epoch * loader.steps_per_epoch() + k));
          seen.insert(seen.end(), part.begin(), part.end());
        }
      }
      std::sort(seen.begin(), seen.end());
      ASSERT_EQ(seen, layout.tokens) << "epoch " << epoch;
    }
  }
}

// Of a stream: the first so many rows are those that the sources give in their shares.
TEST(Conservation, AStreamHoldsEveryTokenOfAWindowOnce) {
  for (uint64_t seed = 100; seed < 140; ++seed) {
    const TemporaryDirectory directory;
    Layout layout = random_layout(seed, directory);
    SCOPED_TRACE(std::to_string(seed) + ": " + layout.text());
    layout.sources.resize(1);
    layout.loader.group_by_length = false;
    layout.loader.packing = Packing::kNone;
    layout.loader.shuffle = true;
    layout.prepare.packing_splits = false;
    layout.prepare.on_long_row = recipes::OnLongRow::kSplit;
    // A window is a pass, a step is a window.
    PrepareReport report;
    const auto dataset = prepare(layout.sources, made_rows(), layout.prepare, &report);
    std::vector<int64_t> expected;
    for (int64_t i = 0; i < dataset->size(); ++i) {
      for (const int32_t id : dataset->example(i).ids) expected.push_back(id);
    }
    std::sort(expected.begin(), expected.end());
    layout.loader.micro = 1;
    layout.loader.ranks = 1;
    layout.loader.global = dataset->size();
    StreamLoader loader(layout.sources, made_rows(), layout.prepare, layout.loader, report.rows);
    for (int64_t step = 0; step < 3; ++step) {
      std::vector<int64_t> seen = checked_tokens(loader.step(step));
      std::sort(seen.begin(), seen.end());
      ASSERT_EQ(seen, expected) << "pass " << step;
    }
  }
}

}  // namespace
}  // namespace temper::data
