// Tokenizers of make_tokenizer.py (tokenizers 0.23.3): everything equal, no tolerance.
#include "data/text/tokenizer.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "tests/data/text/encoding_cases.h"
#include "tests/parity/golden.h"

namespace temper::data {
namespace {

class TokenizerParity : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerParity, AnswersEqualTheReferences) {
  const std::filesystem::path directory = golden_files("tokenizer") / GetParam();
  EXPECT_GE(expect_equal_cases(Tokenizer::load(directory), directory / "cases.jsonl"), 50);
}

INSTANTIATE_TEST_SUITE_P(Shapes, TokenizerParity,
                         ::testing::Values("gpt2", "llama3", "qwen", "llama2", "metaspace", "bert",
                                           "bert_cased", "unigram", "precompiled", "word_level",
                                           "ctc", "scripts", "splits", "clip", "bytes"));

}  // namespace
}  // namespace temper::data
