#include "data/text/tokenizer.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

namespace fs = std::filesystem;
using Offsets = std::vector<std::pair<uint32_t, uint32_t>>;
using Ids = std::vector<int32_t>;

// A model directory that lives as long as the test.
class TokenizerTest : public ::testing::Test {
 protected:
  TokenizerTest() {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    directory_ = fs::temp_directory_path() / (std::string("temper_tokenizer_") + test->name());
    fs::remove_all(directory_);
    fs::create_directories(directory_);
  }
  ~TokenizerTest() override { fs::remove_all(directory_); }

  // Words over a and b, the space and its mark, with three merges.
  static Json small() {
    return Json::parse(R"({"version": "1.0", "added_tokens": [], "normalizer": null,
      "pre_tokenizer": null, "post_processor": null, "decoder": null,
      "model": {"type": "BPE", "unk_token": "<unk>",
                "vocab": {"<unk>": 0, "a": 1, "b": 2, " ": 3, "ab": 4, "abab": 5, "ba": 6, "é": 7},
                "merges": ["a b", "ab ab", "b a"]}})");
  }
  static Json added(const char* content) {
    return {{"content", content}, {"single_word", false}, {"lstrip", false},
            {"rstrip", false},    {"normalized", false},  {"special", true}};
  }
  void write(const char* name, const std::string& text) {
    std::ofstream(directory_ / name) << text;
  }
  Tokenizer load(const Json& definition) {
    write("tokenizer.json", definition.dump());
    return Tokenizer::load(directory_);
  }
  std::string refusal_of_text(const std::string& text) {
    write("tokenizer.json", text);
    try {
      Tokenizer::load(directory_);
    } catch (const UserError& error) {
      return error.what();
    }
    return "loaded";
  }
  std::string refusal(const Json& definition) { return refusal_of_text(definition.dump()); }

  fs::path directory_;
};

TEST_F(TokenizerTest, MergesTheBestRankFirst) {
  const Tokenizer tokenizer = load(small());
  EXPECT_EQ(tokenizer.encode("ababa"), (Ids{5, 1}));
  EXPECT_EQ(tokenizer.encode("ba"), (Ids{6}));
  EXPECT_EQ(tokenizer.encode(""), Ids{});
}

TEST_F(TokenizerTest, MergesMayBeLists) {
  Json definition = small();
  definition["model"]["merges"] = Json::parse(R"([["a", "b"], ["ab", "ab"]])");
  EXPECT_EQ(load(definition).encode("ababa"), (Ids{5, 1}));
}

TEST_F(TokenizerTest, UnknownCharactersStayApartUnlessFused) {
  Json definition = small();
  EXPECT_EQ(load(definition).encode("xya"), (Ids{0, 0, 1}));
  definition["model"]["fuse_unk"] = true;
  EXPECT_EQ(load(definition).encode("xya"), (Ids{0, 1}));
  definition["model"]["unk_token"] = nullptr;
  EXPECT_EQ(load(definition).encode("xya"), (Ids{1}));
}

TEST_F(TokenizerTest, OffsetsAreBytesOfTheText) {
  const Encoding encoding = load(small()).encode_with_offsets("é ab");
  EXPECT_EQ(encoding.ids, (Ids{7, 3, 4}));
  EXPECT_EQ(encoding.offsets, (Offsets{{0, 2}, {2, 3}, {3, 5}}));
}

TEST_F(TokenizerTest, NormalizedOffsetsPointIntoTheOriginal) {
  Json definition = small();
  definition["normalizer"] = {{"type", "NFC"}};
  const Encoding encoding = load(definition)
                                .encode_with_offsets(
                                    "ae\xCC\x81"
                                    "b");
  EXPECT_EQ(encoding.ids, (Ids{1, 7, 2}));
  EXPECT_EQ(encoding.offsets, (Offsets{{0, 1}, {1, 2}, {4, 5}}));
}

TEST_F(TokenizerTest, InvalidUtf8IsReadAsReplacementCharacters) {
  Json definition = small();
  definition["model"]["vocab"]["\xEF\xBF\xBD"] = 8;
  const Encoding encoding = load(definition)
                                .encode_with_offsets(
                                    "a\xFF\xE2\x82"
                                    "b");
  EXPECT_EQ(encoding.ids, (Ids{1, 8, 8, 2}));
  EXPECT_EQ(encoding.offsets, (Offsets{{0, 1}, {1, 2}, {2, 4}, {4, 5}}));
}

TEST_F(TokenizerTest, TheLongestAddedTokenWinsAndItsDeclaredIdDoesNotCount) {
  Json definition = small();
  definition["added_tokens"] = {added("<x>"), added("<x><y>"), added("ab")};
  definition["added_tokens"][0]["id"] = 90;
  const Tokenizer tokenizer = load(definition);
  EXPECT_EQ(tokenizer.encode("a<x><y><x>"), (Ids{1, 9, 8}));
  EXPECT_EQ(tokenizer.token_to_id("ab"), 4);
  EXPECT_EQ(tokenizer.size(), 10);
  EXPECT_TRUE(tokenizer.is_special(9));
  EXPECT_EQ(tokenizer.decode(Ids{1, 9, 2}, true), "a b");
}

TEST_F(TokenizerTest, AddBosTokenOfTheConfigReplacesThePostProcessor) {
  Json definition = small();
  definition["added_tokens"] = {added("<s>"), added("</s>")};
  definition["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "</s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"</s>": {"id": "</s>", "ids": [9], "tokens": ["</s>"]}}})");
  EXPECT_EQ(load(definition).encode("a"), (Ids{9, 1}));
  write("tokenizer_config.json",
        R"({"add_bos_token": true, "bos_token": "<s>", "eos_token": {"content": "</s>"}})");
  const Tokenizer tokenizer = load(definition);
  EXPECT_EQ(tokenizer.encode("a"), (Ids{8, 1}));
  EXPECT_EQ(tokenizer.encode("a", false), (Ids{1}));
  EXPECT_EQ(tokenizer.bos_id(), 8);
  EXPECT_EQ(tokenizer.eos_id(), 9);
  EXPECT_FALSE(tokenizer.pad_id());
  EXPECT_EQ(tokenizer.special_tokens().at(1).second, "</s>");
}

TEST_F(TokenizerTest, PairsFollowTheirTemplate) {
  Json definition = small();
  definition["added_tokens"] = Json::array({added("</s>")});
  definition["post_processor"] = Json::parse(R"({"type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 3}},
             {"Sequence": {"id": "A", "type_id": 1}}],
    "special_tokens": {"</s>": {"id": "</s>", "ids": [8], "tokens": ["</s>"]}}})");
  const Encoding encoding = load(definition).encode_pair("é ab", "ba");
  EXPECT_EQ(encoding.ids, (Ids{6, 8, 7, 3, 4}));
  EXPECT_EQ(encoding.tokens, (std::vector<std::string>{"ba", "</s>", "é", " ", "ab"}));
  EXPECT_EQ(encoding.offsets, (Offsets{{0, 2}, {0, 0}, {0, 2}, {2, 3}, {3, 5}}));
  EXPECT_EQ(encoding.type_ids, (Ids{0, 3, 1, 1, 1}));
  EXPECT_EQ(encoding.words, (Ids{0, kNoWord, 0, 0, 0}));
  EXPECT_EQ(encoding.special_tokens_mask, (std::vector<uint8_t>{0, 1, 0, 0, 0}));
  definition["post_processor"]["pair"] = Json::array();
  const Tokenizer without = load(definition);
  EXPECT_EQ(without.encode("ab"), (Ids{4, 8}));
  EXPECT_THROW(without.encode_pair("a", "b"), UserError);
}

TEST_F(TokenizerTest, TruncationLeavesRoomForSpecialTokens) {
  Json definition = small();
  definition["added_tokens"] = Json::array({added("<s>")});
  write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<s>"})");
  const Tokenizer tokenizer = load(definition);
  const Encoding cut = tokenizer.encode_with_offsets("é é", true, Truncation{.max_length = 3});
  EXPECT_EQ(cut.ids, (Ids{8, 7, 3}));
  ASSERT_EQ(cut.overflowing.size(), 1u);
  EXPECT_EQ(cut.overflowing[0].ids, (Ids{8, 7}));
  const Encoding pair = tokenizer.encode_pair("é é", "a", true, Truncation{.max_length = 4});
  EXPECT_EQ(pair.ids, (Ids{8, 7, 8, 1}));
  EXPECT_EQ(pair.type_ids, (Ids{0, 0, 1, 1}));
  EXPECT_THROW(tokenizer.encode_pair("a", "b", true, Truncation{.max_length = 1}), UserError);
}

TEST_F(TokenizerTest, SettingsOfTheFileAreReadAndLeftToTheCaller) {
  Json definition = small();
  definition["truncation"] = Json::parse(
      R"({"direction": "Left", "max_length": 2, "strategy": "OnlyFirst", "stride": 1})");
  definition["padding"] = Json::parse(R"({"strategy": {"Fixed": 4}, "direction": "Left",
      "pad_to_multiple_of": null, "pad_id": 3, "pad_type_id": 1, "pad_token": " "})");
  const Tokenizer tokenizer = load(definition);
  EXPECT_EQ(tokenizer.encode("é é"), (Ids{7, 3, 7}));
  std::vector<Encoding> batch = {
      tokenizer.encode_with_offsets("é a", true, tokenizer.truncation())};
  EXPECT_EQ(batch[0].ids, (Ids{3, 1}));
  EXPECT_EQ(batch[0].overflowing.at(0).ids, (Ids{7, 3}));
  pad(batch, *tokenizer.padding());
  EXPECT_EQ(batch[0].ids, (Ids{3, 3, 3, 1}));
  definition["padding"]["direction"] = "Up";
  EXPECT_NE(refusal(definition).find("padding: direction 'Up' is not supported; there are Left, Right"),
            std::string::npos);
}

TEST_F(TokenizerTest, FingerprintChangesWithWhatDecidesIds) {
  Json definition = small();
  definition["added_tokens"] = {added("<s>")};
  const std::string plain = load(definition).fingerprint();
  EXPECT_EQ(load(definition).fingerprint(), plain);
  write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<s>"})");
  EXPECT_NE(load(definition).fingerprint(), plain);
}

TEST_F(TokenizerTest, ThreadsShareOneTokenizer) {
  const Tokenizer tokenizer = load(small());
  const Ids expected = tokenizer.encode("ab ba abab xa");
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) wrong[t] += tokenizer.encode("ab ba abab xa") != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST_F(TokenizerTest, RefusesWhatIsMissingMalformedOrNotSupported) {
  EXPECT_THROW(Tokenizer::load(directory_ / "absent"), UserError);
  EXPECT_NE(refusal_of_text("{\"version\": ").find("tokenizer.json: not valid JSON"),
            std::string::npos);
  const auto with = [](const char* pointer, const Json& value) {
    Json definition = small();
    definition[Json::json_pointer(pointer)] = value;
    return definition;
  };
  EXPECT_NE(refusal(with("/version", "2.0")).find("version is '2.0'"), std::string::npos);
  EXPECT_NE(refusal(with("/model/type", "Trigram")).find("model: type 'Trigram' is not supported"),
            std::string::npos);
  for (const char* part : {"normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    const std::string expected = std::string(part) + ": type 'Other' is not supported; there are";
    EXPECT_NE(refusal(with(("/" + std::string(part)).c_str(), {{"type", "Other"}})).find(expected),
              std::string::npos);
  }
  EXPECT_NE(refusal(with("/model/merges", {"a x"})).find("'x' is not in the vocabulary"),
            std::string::npos);
  EXPECT_NE(refusal(with("/model/merges", {"ab"})).find("merges[0]"), std::string::npos);
  EXPECT_NE(refusal(with("/model/vocab/a", -1)).find("the id of 'a'"), std::string::npos);
  EXPECT_NE(refusal(with("/model/dropout", 0.1)).find("dropout"), std::string::npos);
  EXPECT_NE(refusal(with("/pre_tokenizer", Json::parse(R"({"type": "Split", "behavior": "Isolated",
              "pattern": {"Regex": "(a"}, "invert": false})")))
                .find("regular expression '(a'"),
            std::string::npos);
}

TEST_F(TokenizerTest, LaterTokensGetTheNextIdsAndLiveOnInTheFiles) {
  Json definition = small();
  definition["added_tokens"] = Json::array({added("<old>")});
  definition["added_tokens"][0]["id"] = 8;
  const std::string before = load(definition).fingerprint();
  write("tokenizer_config.json", R"({"added_tokens_decoder": {}})");
  const Tokenizer tokenizer = Tokenizer::load(directory_, {"<x>", "<old>", "ba", "<y>"});
  EXPECT_EQ(tokenizer.added_ids(), (Ids{9, 10}));
  EXPECT_EQ(tokenizer.size(), 11);
  EXPECT_EQ(tokenizer.encode("ab<y>ba<x><old>"), (Ids{4, 10, 6, 9, 8}));
  EXPECT_TRUE(tokenizer.is_special(9));
  EXPECT_TRUE(tokenizer.is_special(6));
  EXPECT_NE(tokenizer.fingerprint(), before);

  tokenizer.add_to_files(directory_);
  const Tokenizer again = Tokenizer::load(directory_);
  EXPECT_EQ(again.encode("ab<y>ba<x><old>"), (Ids{4, 10, 6, 9, 8}));
  EXPECT_TRUE(again.is_special(10));
  const Json file = read_json(directory_ / "tokenizer.json");
  EXPECT_EQ(file["added_tokens"].size(), 4u);
  EXPECT_EQ(file["added_tokens"][1]["id"], 9);
  EXPECT_EQ(read_json(directory_ / "tokenizer_config.json")["added_tokens_decoder"]["10"]["content"], "<y>");
  EXPECT_TRUE(Tokenizer::load(directory_, {"<x>", "<y>"}).added_ids().empty());
}

}  // namespace
}  // namespace temper::data
