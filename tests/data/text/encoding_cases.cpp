#include "tests/data/text/encoding_cases.h"

#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

using Ids = std::vector<int32_t>;
using Offsets = std::vector<std::pair<uint32_t, uint32_t>>;

// Byte position of every code point, and of the end.
std::vector<uint32_t> code_point_positions(const std::string& text) {
  std::vector<uint32_t> positions;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      positions.push_back(static_cast<uint32_t>(i));
    }
  }
  positions.push_back(static_cast<uint32_t>(text.size()));
  return positions;
}

// A column in which the reference has null where a token is in no word.
Ids word_ids(const Json& words) {
  Ids result;
  for (const Json& word : words) result.push_back(word.is_null() ? kNoWord : word.get<int32_t>());
  return result;
}

void expect_single(const Tokenizer& tokenizer, const Json& expected) {
  const auto text = expected["text"].get<std::string>();
  const auto ids = expected["ids"].get<Ids>();
  const Encoding encoding = tokenizer.encode_with_offsets(text, false);
  EXPECT_EQ(encoding.ids, ids);
  EXPECT_EQ(tokenizer.encode(text, false), ids);
  if (expected.contains("offsets")) {
    const std::vector<uint32_t> positions = code_point_positions(text);
    Offsets offsets;
    for (const auto& [begin, end] : expected["offsets"].get<Offsets>()) {
      offsets.emplace_back(positions.at(begin), positions.at(end));
    }
    EXPECT_EQ(encoding.offsets, offsets);
  }
  if (expected.contains("tokens")) {
    EXPECT_EQ(encoding.tokens, expected["tokens"].get<std::vector<std::string>>());
  }
  // Ordinary text only, where the reference has no special tokens.
  const Ids with_special =
      expected.contains("ids_special") ? expected["ids_special"].get<Ids>() : ids;
  EXPECT_EQ(tokenizer.encode(text), with_special);
  EXPECT_EQ(tokenizer.encode_with_offsets(text).ids, with_special);
  EXPECT_EQ(tokenizer.decode(with_special, false), expected["decoded"].get<std::string>());
  if (expected.contains("decoded_skip")) {
    EXPECT_EQ(tokenizer.decode(with_special, true), expected["decoded_skip"].get<std::string>());
  }
}

void expect_pair(const Tokenizer& tokenizer, const Json& expected) {
  const auto first = expected["text"].get<std::string>();
  const auto second = expected["pair"].get<std::string>();
  const Encoding encoding = tokenizer.encode_pair(first, second);
  EXPECT_EQ(encoding.ids, expected["ids"].get<Ids>());
  EXPECT_EQ(encoding.type_ids, expected["type_ids"].get<Ids>());
  EXPECT_EQ(encoding.special_tokens_mask, expected["special_mask"].get<std::vector<uint8_t>>());
  EXPECT_EQ(encoding.words, word_ids(expected["word_ids"]));
  EXPECT_EQ(encoding.attention_mask, std::vector<uint8_t>(encoding.ids.size(), 1));
  size_t of_first = tokenizer.encode(first, false).size();
  const std::vector<uint32_t> positions[] = {code_point_positions(first),
                                             code_point_positions(second)};
  Offsets offsets = expected["offsets"].get<Offsets>();
  ASSERT_EQ(encoding.ids.size(), offsets.size());
  for (size_t i = 0; i < offsets.size(); ++i) {
    if (encoding.special_tokens_mask[i] == 1) continue;
    const auto& text = positions[of_first == 0 ? 1 : 0];
    if (of_first > 0) --of_first;
    offsets[i] = {text.at(offsets[i].first), text.at(offsets[i].second)};
  }
  EXPECT_EQ(encoding.offsets, offsets);
}

Truncation truncation_of(const Json& given) {
  const auto strategy = given["strategy"].get<std::string>();
  return {.max_length = given["max_length"].get<int64_t>(),
          .stride = given["stride"].get<int64_t>(),
          .strategy = strategy == "only_first"    ? Truncation::Strategy::kOnlyFirst
                      : strategy == "only_second" ? Truncation::Strategy::kOnlySecond
                                                  : Truncation::Strategy::kLongestFirst,
          .from_left = given["direction"] == "left"};
}

void expect_truncated(const Tokenizer& tokenizer, const Json& expected) {
  const auto encode = [&] {
    const auto text = expected["text"].get<std::string>();
    const Truncation truncation = truncation_of(expected["trunc"]);
    if (expected["pair"].is_null()) return tokenizer.encode_with_offsets(text, true, truncation);
    return tokenizer.encode_pair(text, expected["pair"].get<std::string>(), true, truncation);
  };
  if (expected.contains("error")) {
    EXPECT_THROW(encode(), UserError);
    return;
  }
  const Encoding encoding = encode();
  EXPECT_EQ(encoding.ids, expected["ids"].get<Ids>());
  EXPECT_EQ(encoding.type_ids, expected["type_ids"].get<Ids>());
  std::vector<Ids> overflowing;
  for (const Encoding& window : encoding.overflowing) overflowing.push_back(window.ids);
  EXPECT_EQ(overflowing, expected["overflow"].get<std::vector<Ids>>());
}

Padding padding_of(const Json& given) {
  Padding padding{.length = {},
                  .multiple_of = 0,
                  .on_left = given["direction"] == "left",
                  .id = given["pad_id"].get<int32_t>(),
                  .type_id = given["pad_type_id"].get<int32_t>(),
                  .token = "[PAD]"};
  if (!given["length"].is_null()) padding.length = given["length"].get<int64_t>();
  if (const Json& multiple = given["pad_to_multiple_of"]; !multiple.is_null()) {
    padding.multiple_of = multiple.get<int64_t>();
  }
  return padding;
}

void expect_padded(const Tokenizer& tokenizer, const Json& expected) {
  std::vector<Encoding> batch;
  for (const Json& text : expected["texts"]) {
    batch.push_back(tokenizer.encode_with_offsets(text.get<std::string>()));
  }
  pad(batch, padding_of(expected["pad"]));
  for (size_t i = 0; i < batch.size(); ++i) {
    EXPECT_EQ(batch[i].ids, expected["ids"][i].get<Ids>());
    EXPECT_EQ(batch[i].type_ids, expected["type_ids"][i].get<Ids>());
    EXPECT_EQ(batch[i].attention_mask, expected["attention"][i].get<std::vector<uint8_t>>());
  }
}

}  // namespace

int expect_equal_cases(const Tokenizer& tokenizer, const std::filesystem::path& cases) {
  std::ifstream lines(cases);
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    SCOPED_TRACE(line);
    const Json expected = parse_json(line, cases.string());
    const auto kind = expected["kind"].get<std::string>();
    if (kind == "single") {
      expect_single(tokenizer, expected);
    } else if (kind == "pair") {
      expect_pair(tokenizer, expected);
    } else if (kind == "trunc") {
      expect_truncated(tokenizer, expected);
    } else if (kind == "pad") {
      expect_padded(tokenizer, expected);
    } else {
      ADD_FAILURE() << "a case of another kind";
    }
    if (::testing::Test::HasFailure()) break;
  }
  return count;
}

}  // namespace temper::data
