// Real and made tokenizers with the reference's own answers (tokenizers 0.23.3): all that they say
// must be equal.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "data/text/old_forms.h"
#include "data/text/tokenizer.h"
#include "tests/data/text/encoding_cases.h"

namespace temper::data {
namespace {

namespace fs = std::filesystem;

fs::path shared_directory() {
  if (const char* shared = std::getenv("TEMPER_SHARED")) return shared;
  const char* source = std::getenv("TEMPER_SOURCE_DIR");
  return source == nullptr ? fs::path() : fs::path(source) / ".." / "shared";
}

fs::path fresh_directory(const std::string& name) {
  const fs::path directory = fs::temp_directory_path() / ("temper_tokenizer_shared_" + name);
  fs::remove_all(directory);
  fs::create_directories(directory);
  return directory;
}

std::string test_name(const ::testing::TestParamInfo<const char*>& tokenizer) {
  std::string name = tokenizer.param;
  for (char& c : name) c = c == '-' ? '_' : c;
  return name;
}

// The cases are no part of the checkout: where they are absent the tests say so, and the goldens of
// tests/parity stand for them.
class SharedTokenizer : public ::testing::TestWithParam<const char*> {};

TEST_P(SharedTokenizer, GivesTheReferencesAnswers) {
  const fs::path directory = shared_directory() / "data" / "tokenizers" / GetParam();
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is not here";
  // The cases are those of tokenizer.json alone.
  const fs::path model = fresh_directory(GetParam());
  fs::create_symlink(directory / "tokenizer.json", model / "tokenizer.json");
  EXPECT_GT(expect_equal_cases(Tokenizer::load(model), directory / "cases.jsonl"), 100);
}

INSTANTIATE_TEST_SUITE_P(All, SharedTokenizer,
                         ::testing::Values("bert-base-uncased", "clip", "mistral-v1", "mistral-v3",
                                           "phi-3-mini", "roberta-base", "sp-unigram-en",
                                           "syn-added-tokens", "syn-bert-uncased", "syn-clip",
                                           "syn-ctc", "syn-gemma", "syn-gpt2-prefix",
                                           "syn-llama2-metaspace", "syn-llama3", "syn-qwen2",
                                           "syn-split-behaviours", "syn-unigram-xlmr",
                                           "syn-wordlevel", "t5-small", "tiny-llama3-like"),
                         test_name);

// An older form of a tokenizer that has the same cases.
struct OldForm {
  const char* name;
  std::vector<const char*> files;
  const char* config;
};

class SharedOldForm : public ::testing::TestWithParam<OldForm> {};

TEST_P(SharedOldForm, GivesTheReferencesAnswers) {
  const OldForm& form = GetParam();
  const fs::path directory = shared_directory() / "data" / "tokenizers" / form.name;
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is not here";
  const fs::path model = fresh_directory(std::string("old_") + form.name);
  for (const char* file : form.files) fs::create_symlink(directory / file, model / file);
  if (*form.config != '\0') std::ofstream(model / "tokenizer_config.json") << form.config;
  EXPECT_GT(expect_equal_cases(Tokenizer::load(model), directory / "cases.jsonl"), 70);
}

INSTANTIATE_TEST_SUITE_P(
    All, SharedOldForm,
    ::testing::Values(OldForm{"gpt2", {"vocab.json", "merges.txt"}, ""},
                      OldForm{"bert-base-uncased", {"vocab.txt"}, ""},
                      OldForm{"mistral-v1", {"tokenizer.model"}, ""},
                      OldForm{"mistral-v3", {"tokenizer.model"}, R"({"legacy": false})"},
                      OldForm{"sp-unigram-en", {"tokenizer.model"}, ""},
                      OldForm{"whisper-multilingual", {"multilingual.tiktoken"}, ""}),
    [](const ::testing::TestParamInfo<OldForm>& form) {
      std::string name = form.param.name;
      for (char& c : name) c = c == '-' ? '_' : c;
      return name;
    });

TEST(SharedRanks, Cl100kGivesTheReferencesAnswers) {
  const fs::path directory = shared_directory() / "data" / "tokenizers" / "cl100k";
  if (!fs::exists(directory)) GTEST_SKIP() << directory << " is not here";
  const fs::path model = fresh_directory("cl100k");
  // Its cases are those of a pipeline of its own around the ranks.
  Json definition = read_json(directory / "spec.json");
  definition["model"] = read_definition(directory).json["model"];
  std::ofstream(model / "tokenizer.json") << definition.dump();
  EXPECT_GT(expect_equal_cases(Tokenizer::load(model), directory / "cases.jsonl"), 100);
}

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
