#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "data/io/json.h"

/// Tokenizers of before tokenizer.json, turned into one: vocab.json with merges.txt, vocab.txt,
/// SentencePiece's tokenizer.model, tiktoken's ranks. How the text is cut is in none of these
/// files: it follows "tokenizer_class" of tokenizer_config.json, as transformers has it in code.
namespace temper::data {

struct TokenizerDefinition {
  Json json;          // as in tokenizer.json
  std::string where;  // the file it came from, for errors
  /// What decides ids, byte for byte.
  std::string source;
  /// Special tokens that the class has where no file names them ("bos_token" -> "<s>").
  std::vector<std::pair<std::string, std::string>> special_tokens;
};

/// tokenizer.json of a model directory, or what its older files make. Throws UserError for a
/// directory without any of them, damaged files, and classes that are not supported.
TokenizerDefinition read_definition(const std::filesystem::path& directory);

}  // namespace temper::data
