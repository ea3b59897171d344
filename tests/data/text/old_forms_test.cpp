#include "data/text/old_forms.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/text/tokenizer.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<int32_t>;

// A model directory that lives as long as the test.
class OldForms : public ::testing::Test {
 protected:
  OldForms() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    directory_ = fs::temp_directory_path() / (std::string("temper_old_forms_") + test->name());
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  ~OldForms() override { fs::remove_all(directory_); }

  void write(const char* name, const std::string& bytes) {
    std::ofstream(directory_ / name, std::ios::binary) << bytes;
  }
  Tokenizer load() const { return Tokenizer::load(directory_); }
  std::string refusal() const {
    try {
      load();
    } catch (const UserError& error) {
      return error.what();
    }
    return "loaded";
  }

  fs::path directory_;
};

// A field of a protocol buffer: bytes, or a small number.
std::string field(int number, const std::string& bytes) {
  const int key = number << 3 | 2;
  std::string result;
  if (key >= 0x80) result.push_back(static_cast<char>((key & 0x7F) | 0x80));
  result.push_back(static_cast<char>(key >= 0x80 ? key >> 7 : key));
  result.push_back(static_cast<char>(bytes.size()));
  return result + bytes;
}
std::string field(int number, char value) {
  const int key = number << 3;
  std::string result;
  if (key >= 0x80) result.push_back(static_cast<char>((key & 0x7F) | 0x80));
  result.push_back(static_cast<char>(key >= 0x80 ? key >> 7 : key));
  result.push_back(value);
  return result;
}
std::string piece(const std::string& text, float score, char type) {
  std::string bytes = field(1, text);
  bytes.push_back(2 << 3 | 5);
  bytes.append(reinterpret_cast<const char*>(&score), sizeof score);
  return field(1, bytes + field(3, type));
}
std::string sentencepiece(char kind) {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) +
         piece("\u2581a", -1, 1) + piece("ab", -2, 1) + piece("\u2581", -3, 1) +
         piece("a", -4, 1) + piece("b", -5, 1) + field(2, field(3, kind));
}

TEST_F(OldForms, SentencePieceBpeMergesByScore) {
  write("tokenizer.model", sentencepiece(2));
  const Tokenizer tokenizer = load();
  // The space mark and a come before a and b.
  EXPECT_EQ(tokenizer.encode("ab ab"), (Ids{1, 3, 7, 3, 7}));
  EXPECT_EQ(tokenizer.decode(Ids{1, 3, 7, 3, 7}, true), "ab ab");
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
}

TEST_F(OldForms, SentencePieceLegacyPutsTheMarkBeforeEveryText) {
  write("tokenizer.model", sentencepiece(2));
  EXPECT_EQ(load().encode("<s>ab", false), (Ids{1, 3, 7}));
  write("tokenizer_config.json", R"({"legacy": false})");
  EXPECT_EQ(load().encode("<s>ab", false), (Ids{1, 4}));
}

TEST_F(OldForms, SentencePieceUnigramTakesTheBestSum) {
  write("tokenizer.model", sentencepiece(1));
  EXPECT_EQ(load().encode("ab", false), (Ids{5, 4}));
}

TEST_F(OldForms, VocabularyAndMergesAreGpt2s) {
  write("vocab.json", R"({"a": 0, "b": 1, "ab": 2, "Ġ": 3, "<|endoftext|>": 4})");
  write("merges.txt", "#version: 0.2\na b\n");
  write("added_tokens.json", R"({"<y>": 6, "<x>": 5})");
  const Tokenizer tokenizer = load();
  EXPECT_EQ(tokenizer.encode("ab a<x><y><|endoftext|>"), (Ids{2, 3, 0, 5, 6, 4}));
  EXPECT_EQ(tokenizer.eos_id(), 4);
}

TEST_F(OldForms, AWordListIsBerts) {
  write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\nhe\n##llo\n!\n");
  EXPECT_EQ(load().encode("HÉllo!"), (Ids{2, 4, 5, 6, 3}));
  write("tokenizer_config.json", R"({"do_lower_case": false})");
  EXPECT_EQ(load().encode("HEllo!"), (Ids{2, 1, 6, 3}));
}

TEST_F(OldForms, RanksAreMergesToo) {
  write("x.tiktoken", "YQ== 0\nYg== 1\nYWI= 2\nIA== 3\nYWJh 4\n");  // a, b, ab, space, aba
  EXPECT_EQ(load().encode("ababab aba"), (Ids{2, 2, 2, 3, 4}));
}

TEST_F(OldForms, RefusesWhatIsDamagedOrNotSupported) {
  EXPECT_NE(refusal().find("vocab.json and merges.txt"), std::string::npos);
  write("x.tiktoken", "YQ== 0\nYg== one\n");
  EXPECT_NE(refusal().find("x.tiktoken:2: must be the base64"), std::string::npos);
  write("vocab.txt", "a\nb\n");
  EXPECT_NE(refusal().find("vocab.txt: lacks '[CLS]'"), std::string::npos);
  write("tokenizer.model", sentencepiece(2).substr(0, 40));
  EXPECT_NE(refusal().find("tokenizer.model: no SentencePiece model, or one that is cut short"),
            std::string::npos);
  write("tokenizer.model", sentencepiece(2));
  write("tokenizer_config.json", R"({"tokenizer_class": "XLMRobertaTokenizerFast"})");
  EXPECT_NE(refusal().find("tokenizer_class 'XLMRobertaTokenizer' is not supported"),
            std::string::npos);
}

}  // namespace
}  // namespace temper::data
