#include "trainer/generation/kv_cache.h"

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace temper::trainer {
namespace {

// Two layers of two heads of four dims.
const PageShape kShape{.layers = 2, .kv_heads = 2, .head_dim = 4};

/// Appends tokens to a sequence; a page's first byte says who wrote there last.
class KvCacheTest : public testing::Test {
 protected:
  void append(int64_t sequence, int64_t tokens, char mark) {
    const PagedRun run = cache_.extend(sequence, tokens);
    EXPECT_EQ(run.position + run.tokens, cache_.length(sequence));
    for (int64_t t = run.position; t < run.position + run.tokens; ++t)
      run.pages[t / kPageTokens][t % kPageTokens] = mark;
  }
  std::string marks(int64_t sequence) {
    const PagedRun run = cache_.extend(sequence, 0);
    std::string text;
    for (int64_t t = 0; t < run.position; ++t) text += run.pages[t / kPageTokens][t % kPageTokens];
    return text;
  }

  KvCache cache_{kShape};
};

TEST_F(KvCacheTest, TakesAPageForEverySixteenTokensAndGivesAllBack) {
  const int64_t sequence = cache_.add();
  EXPECT_EQ(cache_.pages_in_use(), 0);
  append(sequence, 16, 'a');
  EXPECT_EQ(cache_.pages_in_use(), 1);
  append(sequence, 1, 'b');
  EXPECT_EQ(cache_.pages_in_use(), 2);
  append(sequence, 40, 'c');
  EXPECT_EQ(cache_.pages_in_use(), 4);
  EXPECT_EQ(marks(sequence), std::string(16, 'a') + "b" + std::string(40, 'c'));
  cache_.remove(sequence);
  EXPECT_EQ(cache_.pages_in_use(), 0);
}

TEST_F(KvCacheTest, SamplesShareFullPagesAndCopyThePartlyFilledOneWhenTheyWrite) {
  const int64_t prompt = cache_.add();
  append(prompt, 20, 'p');
  const int64_t one = cache_.fork(prompt), other = cache_.fork(prompt);
  EXPECT_EQ(cache_.pages_in_use(), 2);
  append(one, 3, '1');
  EXPECT_EQ(cache_.pages_in_use(), 3);
  append(other, 2, '2');
  EXPECT_EQ(cache_.pages_in_use(), 4);
  EXPECT_EQ(marks(prompt), std::string(20, 'p'));
  EXPECT_EQ(marks(one), std::string(20, 'p') + "111");
  EXPECT_EQ(marks(other), std::string(20, 'p') + "22");
  EXPECT_EQ(cache_.extend(one, 0).pages[0], cache_.extend(other, 0).pages[0]);
}

TEST_F(KvCacheTest, TheLastToHoldAPageWritesInItWithoutACopy) {
  const int64_t prompt = cache_.add();
  append(prompt, 20, 'p');
  const int64_t sample = cache_.fork(prompt);
  cache_.remove(prompt);
  append(sample, 1, 's');
  EXPECT_EQ(cache_.pages_in_use(), 2);
  EXPECT_EQ(marks(sample), std::string(20, 'p') + "s");
}

TEST_F(KvCacheTest, AFullLastPageIsNeverCopied) {
  const int64_t prompt = cache_.add();
  append(prompt, 32, 'p');
  const int64_t sample = cache_.fork(prompt);
  append(sample, 1, 's');
  EXPECT_EQ(cache_.pages_in_use(), 3);
}

TEST_F(KvCacheTest, FreedPagesAreUsedAgainAndLivingOnesNever) {
  const int64_t stays = cache_.add();
  append(stays, 100, 's');
  const auto kept = cache_.extend(stays, 0).pages;
  const std::set<char*> pages(kept.begin(), kept.end());
  std::set<char*> others;
  for (int round = 0; round < 50; ++round) {
    const int64_t passing = cache_.add();
    append(passing, 64 + round, 'x');
    for (char* page : cache_.extend(passing, 0).pages) {
      EXPECT_EQ(pages.count(page), 0U);
      others.insert(page);
    }
    cache_.remove(passing);
  }
  EXPECT_LE(others.size(), 8U);
  EXPECT_EQ(marks(stays), std::string(100, 's'));
  EXPECT_EQ(cache_.pages_in_use(), 7);
}

TEST_F(KvCacheTest, ARemovedSequenceIsNoLongerThere) {
  const int64_t sequence = cache_.add();
  cache_.remove(sequence);
  EXPECT_THROW(cache_.length(sequence), std::logic_error);
}

}  // namespace
}  // namespace temper::trainer
