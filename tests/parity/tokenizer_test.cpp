// Tokenizers of make_tokenizer.py (tokenizers 0.23.3): everything equal, no tolerance.
#include "data/text/tokenizer.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/parity/golden.h"

namespace temper::data {
namespace {

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

class TokenizerParity : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerParity, IdsOffsetsAndTextEqualTheReferences) {
  const std::filesystem::path directory = golden_files("tokenizer") / GetParam();
  const Tokenizer tokenizer = Tokenizer::load(directory);
  std::ifstream lines(directory / "cases.jsonl");
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    const Json expected = parse_json(line, "cases.jsonl:" + std::to_string(count + 1));
    const auto text = expected["text"].get<std::string>();
    const auto ids = expected["ids"].get<std::vector<int32_t>>();
    const auto with_special = expected["ids_special"].get<std::vector<int32_t>>();
    const std::vector<uint32_t> positions = code_point_positions(text);
    std::vector<std::pair<uint32_t, uint32_t>> offsets;
    for (const Json& span : expected["offsets"]) {
      offsets.emplace_back(positions.at(span[0].get<size_t>()),
                           positions.at(span[1].get<size_t>()));
    }
    const Encoding encoding = tokenizer.encode_with_offsets(text, false);
    ASSERT_EQ(encoding.ids, ids) << line;
    ASSERT_EQ(encoding.offsets, offsets) << line;
    ASSERT_EQ(tokenizer.encode(text, false), ids) << line;
    ASSERT_EQ(tokenizer.encode(text), with_special) << line;
    ASSERT_EQ(tokenizer.decode(with_special, false), expected["decoded"].get<std::string>())
        << line;
    ASSERT_EQ(tokenizer.decode(with_special, true), expected["decoded_skip"].get<std::string>())
        << line;
  }
  EXPECT_GE(count, 40);
}

INSTANTIATE_TEST_SUITE_P(Shapes, TokenizerParity,
                         ::testing::Values("gpt2", "llama3", "qwen", "llama2", "metaspace", "bert",
                                           "bert_cased", "unigram", "precompiled", "word_level",
                                           "ctc", "scripts", "splits", "clip", "bytes"));

}  // namespace
}  // namespace temper::data
