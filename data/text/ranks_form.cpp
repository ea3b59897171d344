#include <utility>

#include "data/text/old_form_readers.h"
#include "data/text/vocabulary_files.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;

// The patterns of OpenAI's encodings, and of those that followed them.
constexpr const char* kContractions = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))";
const std::string kCl100k = std::string(kContractions) +
                            R"(|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
                            R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kO200k =
    std::string(R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)") +
    kContractions +
    R"(?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)" +
    kContractions + R"(?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

Json tiktoken_pre_tokenizer(const std::string& file) {
  if (is_one_of(file, {"gpt2.tiktoken", "r50k_base.tiktoken", "p50k_base.tiktoken",
                       "multilingual.tiktoken"})) {
    return byte_level_step(false, true);
  }
  return split_and_spell(file.starts_with("qwen")    ? kQwenPattern
                         : file.starts_with("o200k") ? kO200k
                                                     : kCl100k);
}

}  // namespace

TokenizerDefinition from_ranks(const fs::path& path, std::string text) {
  auto [vocabulary, merges] = vocabulary_of_ranks(text, path.string());
  TokenizerDefinition result{
      .json = definition_of({{"type", "BPE"},
                             {"ignore_merges", true},
                             {"vocab", std::move(vocabulary)},
                             {"merges", std::move(merges)}},
                            nullptr, tiktoken_pre_tokenizer(path.filename().string()),
                            byte_level_step(true, true)),
      .where = path.string(),
      .source = std::move(text),
      .special_tokens = {}};
  result.json["post_processor"] = untrimmed();
  return result;
}

}  // namespace temper::data
