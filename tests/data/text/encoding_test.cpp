#include "data/text/encoding.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/text/padding.h"
#include "data/text/truncation.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

using Ids = std::vector<int32_t>;
using Strategy = Truncation::Strategy;

// Tokens of these ids, as if each were a word.
Encoding tokens(const Ids& ids) {
  std::vector<std::string> spellings;
  for (const int32_t id : ids) spellings.push_back(std::to_string(id));
  return special_encoding(ids, spellings, 0);
}

std::vector<Ids> windows(const Encoding& encoding) {
  std::vector<Ids> result = {encoding.ids};
  for (const Encoding& window : encoding.overflowing) result.push_back(window.ids);
  return result;
}

std::vector<Ids> truncated(const Ids& ids, const Truncation& truncation) {
  Encoding encoding = tokens(ids);
  truncate(encoding, nullptr, truncation);
  return windows(encoding);
}

// What is left of a pair of so many tokens.
std::pair<size_t, size_t> left_of(size_t first, size_t second, const Truncation& truncation) {
  Encoding texts[] = {tokens(Ids(first)), tokens(Ids(second))};
  truncate(texts[0], &texts[1], truncation);
  return {texts[0].ids.size(), texts[1].ids.size()};
}

TEST(Truncation, WindowsShareTheStride) {
  EXPECT_EQ(truncated({1, 2, 3, 4, 5}, {.max_length = 5}), (std::vector<Ids>{{1, 2, 3, 4, 5}}));
  EXPECT_EQ(truncated({1, 2, 3, 4, 5}, {.max_length = 2}), (std::vector<Ids>{{1, 2}, {3, 4}, {5}}));
  EXPECT_EQ(truncated({1, 2, 3, 4, 5}, {.max_length = 3, .stride = 1}),
            (std::vector<Ids>{{1, 2, 3}, {3, 4, 5}}));
}

TEST(Truncation, FromTheLeftKeepsTheEnd) {
  EXPECT_EQ(truncated({1, 2, 3, 4, 5}, {.max_length = 2, .from_left = true}),
            (std::vector<Ids>{{4, 5}, {2, 3}, {1}}));
}

TEST(Truncation, NothingMayBeLeft) {
  EXPECT_EQ(truncated({1, 2}, {.max_length = 0}), (std::vector<Ids>{{}, {1, 2}}));
}

TEST(Truncation, LongestFirstCutsTheLongerTextAndThenBoth) {
  EXPECT_EQ(left_of(2, 3, {.max_length = 5}), (std::pair<size_t, size_t>{2, 3}));
  EXPECT_EQ(left_of(2, 9, {.max_length = 7}), (std::pair<size_t, size_t>{2, 5}));
  EXPECT_EQ(left_of(9, 2, {.max_length = 7}), (std::pair<size_t, size_t>{5, 2}));
  EXPECT_EQ(left_of(9, 9, {.max_length = 7}), (std::pair<size_t, size_t>{3, 4}));
  EXPECT_EQ(left_of(9, 8, {.max_length = 7}), (std::pair<size_t, size_t>{4, 3}));
}

TEST(Truncation, OneTextAloneMayBeTooShort) {
  EXPECT_EQ(left_of(4, 3, {.max_length = 5, .strategy = Strategy::kOnlyFirst}),
            (std::pair<size_t, size_t>{2, 3}));
  EXPECT_EQ(left_of(4, 3, {.max_length = 5, .strategy = Strategy::kOnlySecond}),
            (std::pair<size_t, size_t>{4, 1}));
  EXPECT_THROW(left_of(4, 3, {.max_length = 4, .strategy = Strategy::kOnlySecond}), UserError);
  EXPECT_THROW(truncated({1, 2}, {.max_length = 1, .strategy = Strategy::kOnlySecond}), UserError);
}

TEST(Truncation, RefusesAStrideThatLeavesNoStep) {
  EXPECT_THROW(truncated({1, 2, 3}, {.max_length = 2, .stride = 2}), UserError);
}

TEST(Encoding, WindowsOfPiecesMeetEachOther) {
  Encoding first = tokens({1, 2});
  Encoding second = tokens({3, 4});
  truncate(first, &second, {.max_length = 2});
  EXPECT_EQ(windows(concatenate({first, tokens({0}), second})),
            (std::vector<Ids>{{1, 0, 3}, {2, 0, 3}, {2, 0, 4}, {1, 0, 4}}));
}

TEST(Padding, FillsToTheLongestOrToALength) {
  std::vector<Encoding> batch = {tokens({1, 2, 3}), tokens({4})};
  pad(batch, {.length = {}, .id = 9, .type_id = 2, .token = "[PAD]"});
  EXPECT_EQ(batch[1].ids, (Ids{4, 9, 9}));
  EXPECT_EQ(batch[1].tokens, (std::vector<std::string>{"4", "[PAD]", "[PAD]"}));
  EXPECT_EQ(batch[1].type_ids, (Ids{0, 2, 2}));
  EXPECT_EQ(batch[1].attention_mask, (std::vector<uint8_t>{1, 0, 0}));
  pad(batch, {.length = 2, .multiple_of = 4, .on_left = true, .token = "[PAD]"});
  EXPECT_EQ(batch[0].ids, (Ids{0, 1, 2, 3}));
  EXPECT_EQ(batch[1].attention_mask, (std::vector<uint8_t>{0, 1, 0, 0}));
}

TEST(Padding, FillsWindowsToo) {
  std::vector<Encoding> batch = {tokens({1, 2, 3})};
  truncate(batch[0], nullptr, {.max_length = 2});
  pad(batch, {.length = {}, .on_left = true, .token = {}});
  EXPECT_EQ(windows(batch[0]), (std::vector<Ids>{{1, 2}, {0, 3}}));
}

}  // namespace
}  // namespace temper::data
