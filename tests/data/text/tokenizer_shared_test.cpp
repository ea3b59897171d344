// Real and made tokenizers with the reference's own answers (tokenizers 0.23.3): ids, decoded text
// and offsets must be equal.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "data/text/tokenizer.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

namespace fs = std::filesystem;

fs::path shared_directory() {
  if (const char* shared = std::getenv("TEMPER_SHARED")) return shared;
  const char* source = std::getenv("TEMPER_SOURCE_DIR");
  return source == nullptr ? fs::path() : fs::path(source) / ".." / "shared";
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

fs::path fresh_directory(const std::string& name) {
  const fs::path directory = fs::temp_directory_path() / ("temper_tokenizer_shared_" + name);
  fs::remove_all(directory);
  fs::create_directories(directory);
  return directory;
}

// The tokenizer.json of GPT-2 from its three published parts.
void assemble_gpt2(const fs::path& parts, const fs::path& directory) {
  Json definition = read_json(parts / "spec.json");
  Json& model = definition["model"];
  model["vocab"] = parse_json(read_text(parts / "vocab.json"), "vocab.json");
  model["merges"] = Json::array();
  std::ifstream merges(parts / "merges.txt");
  for (std::string line; std::getline(merges, line);) {
    if (!line.empty() && !line.starts_with("#version")) model["merges"].push_back(line);
  }
  std::ofstream(directory / "tokenizer.json") << definition.dump();
}

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

// The number of cases compared.
int expect_equal_cases(const Tokenizer& tokenizer, const fs::path& cases) {
  std::ifstream lines(cases);
  int count = 0;
  for (std::string line; std::getline(lines, line);) {
    const Json expected = parse_json(line, cases.string());
    if (expected["kind"] != "single" || !expected.contains("ids_special")) continue;
    SCOPED_TRACE(expected["text"].dump());
    const auto text = expected["text"].get<std::string>();
    const Encoding encoding = tokenizer.encode_with_offsets(text, false);
    const auto ids = expected["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(encoding.ids, ids);
    EXPECT_EQ(tokenizer.encode(text, false), ids);
    const auto with_special = expected["ids_special"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.encode(text), with_special);
    std::vector<std::pair<uint32_t, uint32_t>> offsets;
    const std::vector<uint32_t> positions = code_point_positions(text);
    for (const Json& span : expected["offsets"]) {
      offsets.emplace_back(positions.at(span[0].get<size_t>()),
                           positions.at(span[1].get<size_t>()));
    }
    EXPECT_EQ(encoding.offsets, offsets);
    EXPECT_EQ(tokenizer.decode(with_special, false), expected["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer.decode(with_special, true), expected["decoded_skip"].get<std::string>());
    ++count;
    if (::testing::Test::HasFailure()) break;  // one difference says enough
  }
  return count;
}

std::string test_name(const ::testing::TestParamInfo<const char*>& tokenizer) {
  std::string name = tokenizer.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

class SharedTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(SharedTokenizer, GivesTheReferencesIdsOffsetsAndText) {
  const fs::path directory = shared_directory() / "data" / "tokenizers" / GetParam();
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is not here";
  fs::path model = directory;
  if (!fs::exists(directory / "tokenizer.json")) {
    model = fresh_directory(GetParam());
    assemble_gpt2(directory, model);
  } else if (fs::exists(directory / "tokenizer_config.json")) {
    // The cases are those of tokenizer.json alone.
    model = fresh_directory(GetParam());
    fs::create_symlink(directory / "tokenizer.json", model / "tokenizer.json");
  }
  EXPECT_GT(expect_equal_cases(Tokenizer::load(model), directory / "cases.jsonl"), 100);
}

INSTANTIATE_TEST_SUITE_P(Supported, SharedTokenizer,
                         ::testing::Values("gpt2", "mistral-v1", "mistral-v3", "phi-3-mini",
                                           "roberta-base", "syn-gemma", "syn-gpt2-prefix",
                                           "syn-llama2-metaspace", "syn-llama3", "syn-qwen2",
                                           "tiny-llama3-like"),
                         test_name);

class UnsupportedTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(UnsupportedTokenizer, IsRefusedWithTheComponentNamed) {
  const fs::path directory = shared_directory() / "data" / "tokenizers" / GetParam();
  if (!fs::exists(directory / "tokenizer.json")) GTEST_SKIP() << directory << " is not here";
  try {
    Tokenizer::load(directory);
    FAIL() << "loads: move it to the supported ones";
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("is not supported; there are"), std::string::npos)
        << error.what();
  }
}

INSTANTIATE_TEST_SUITE_P(YetToCome, UnsupportedTokenizer,
                         ::testing::Values("bert-base-uncased", "clip", "sp-unigram-en",
                                           "syn-added-tokens", "syn-bert-uncased", "syn-clip",
                                           "syn-ctc", "syn-split-behaviours", "syn-unigram-xlmr",
                                           "syn-wordlevel"),
                         test_name);

TEST(SharedModel, Stories260kEncodesWhatItsReferenceSays) {
  const fs::path directory = shared_directory() / "models" / "stories260K";
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is not here";
  const Tokenizer tokenizer = Tokenizer::load(directory);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  const Json reference = read_json(directory / "reference.json");
  for (const Json& sample : reference["greedy"]) {
    const auto prompt = sample["prompt"].get<std::string>();
    EXPECT_EQ(tokenizer.encode(prompt), sample["ids"].get<std::vector<int32_t>>());
    auto ids = sample["ids"].get<std::vector<int32_t>>();
    for (const Json& id : sample["greedy"]) ids.push_back(id.get<int32_t>());
    EXPECT_EQ(tokenizer.decode(ids, true), sample["text"].get<std::string>());
  }
}

}  // namespace
}  // namespace temper::data
