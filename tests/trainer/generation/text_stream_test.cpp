#include "trainer/generation/text_stream.h"

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/text/tokenizer.h"

namespace temper::trainer {
namespace {

class TextStreamTest : public testing::Test {
 protected:
  /// Pushes the tokens of `text` until a stop string appears; returns the pieces given out.
  std::vector<std::string> pieces(const std::string& text,
                                  const std::vector<std::string>& stop = {}) {
    std::vector<std::string> given;
    TextStream stream(tokenizer_, stop, [&](const std::string& piece) { given.push_back(piece); });
    stopped_ = false;
    for (const int32_t id : tokenizer_.encode(text, /*add_special_tokens=*/false)) {
      stopped_ = stream.push(id);
      if (stopped_) break;
    }
    stopped_ = stream.finish() || stopped_;
    return given;
  }

  std::string joined(const std::string& text, const std::vector<std::string>& stop = {}) {
    std::string all;
    for (const std::string& piece : pieces(text, stop)) all += piece;
    return all;
  }

  // Byte-level BPE made from C++ headers: other scripts fall apart into bytes.
  data::Tokenizer tokenizer_ = data::Tokenizer::load(
      std::filesystem::path(std::getenv("TEMPER_SOURCE_DIR")) / "configs/quickstart");
  bool stopped_ = false;
};

TEST_F(TextStreamTest, PiecesJoinToTheText) {
  const std::string text = "template <typename T>\n  int main(); // 漢字 🙂 done";
  EXPECT_EQ(joined(text), text);
  EXPECT_FALSE(stopped_);
}

TEST_F(TextStreamTest, ACharacterIsNeverGivenOutInHalves) {
  for (const std::string& piece : pieces("a漢b🙂c"))
    EXPECT_EQ(piece.find("\xEF\xBF\xBD"), std::string::npos) << piece;
}

TEST_F(TextStreamTest, BytesThatNeverBecomeACharacterComeOutAtTheEnd) {
  const auto ids = tokenizer_.encode("漢", /*add_special_tokens=*/false);
  ASSERT_GT(ids.size(), 1U);
  TextStream stream(tokenizer_, {}, {});
  stream.push(ids.front());
  EXPECT_EQ(stream.text(), "");
  stream.finish();
  EXPECT_EQ(stream.text(), "\xEF\xBF\xBD");
}

TEST_F(TextStreamTest, EndsBeforeTheFirstStopStringEvenAcrossTokens) {
  EXPECT_EQ(joined("int x = 1; return x; return y;", {"; return"}), "int x = 1");
  EXPECT_TRUE(stopped_);
}

TEST_F(TextStreamTest, TheEarliestOfSeveralStopStringsCounts) {
  EXPECT_EQ(joined("one two three", {"three", "two"}), "one ");
}

TEST_F(TextStreamTest, WhatOnlyBeganAsAStopStringIsGivenOut) {
  EXPECT_EQ(joined("return 0; retur", {"return 1"}), "return 0; retur");
  EXPECT_FALSE(stopped_);
}

TEST_F(TextStreamTest, NothingOfAStopStringIsEverGivenOut) {
  std::string before;
  for (const std::string& piece : pieces("alpha beta STOP gamma", {"STOP"})) {
    before += piece;
    EXPECT_EQ(before.find('S'), std::string::npos);
  }
  EXPECT_EQ(before, "alpha beta ");
}

}  // namespace
}  // namespace temper::trainer
