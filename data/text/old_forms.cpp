#include "data/text/old_forms.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "data/text/old_form_readers.h"
#include "data/text/vocabulary_files.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

namespace fs = std::filesystem;

std::optional<fs::path> find_tiktoken(const fs::path& directory) {
  std::vector<fs::path> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored)) {
    if (entry.path().extension() == ".tiktoken") found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found.empty() ? std::nullopt : std::optional(found.front());
}

// Tokens that old saves keep beside the vocabulary: content to id.
void append_added_tokens(const fs::path& directory, Json& definition) {
  const fs::path path = directory / "added_tokens.json";
  if (!fs::exists(path)) return;
  const Json added = read_json(path);
  std::vector<std::pair<int64_t, std::string>> tokens;
  for (const auto& [content, id] : added.items()) {
    if (!id.is_number_integer())
      throw UserError(path.string() + ": must be an object of token: id");
    tokens.emplace_back(id.get<int64_t>(), content);
  }
  std::sort(tokens.begin(), tokens.end());
  for (const auto& [id, content] : tokens) add_token(definition, content, false);
}

TokenizerDefinition read_old_form(const fs::path& directory) {
  const OldSettings settings(directory);
  for (const char* name : {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model"}) {
    const fs::path path = directory / name;
    if (!fs::exists(path)) continue;
    std::string bytes = read_tokenizer_file(path);
    // Llama 3 calls its ranks tokenizer.model too; those are lines of text.
    return looks_like_ranks(bytes) ? from_ranks(path, std::move(bytes))
                                   : from_sentencepiece(path, std::move(bytes), settings);
  }
  if (fs::exists(directory / "vocab.json") && fs::exists(directory / "merges.txt")) {
    return from_vocabulary_and_merges(directory, settings);
  }
  if (fs::exists(directory / "vocab.txt")) {
    return from_word_list(directory / "vocab.txt", settings);
  }
  if (const auto ranks = find_tiktoken(directory))
    return from_ranks(*ranks, read_tokenizer_file(*ranks));
  throw UserError((directory / "tokenizer.json").string() +
                  ": cannot read: " + std::strerror(ENOENT) +
                  "; a model directory needs this file for its tokenizer, or tokenizer.model, "
                  "vocab.json and merges.txt, vocab.txt or a .tiktoken file");
}

}  // namespace

TokenizerDefinition read_definition(const fs::path& directory) {
  const fs::path path = directory / "tokenizer.json";
  if (!fs::exists(path)) {
    TokenizerDefinition result = read_old_form(directory);
    append_added_tokens(directory, result.json);
    result.source += result.json["normalizer"].dump() + result.json["pre_tokenizer"].dump() +
                     result.json["added_tokens"].dump();
    return result;
  }
  std::string text = read_tokenizer_file(path);
  Json json = parse_json(text, path.string());
  return {.json = std::move(json),
          .where = path.string(),
          .source = std::move(text),
          .special_tokens = {}};
}

}  // namespace temper::data
