#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/text/added_tokens.h"

/// What a model directory says about its tokenizer outside tokenizer.json, read as
/// transformers 5.23 reads it for PreTrainedTokenizerFast.
namespace temper::data {

struct TokenizerConfig {
  /// ("bos_token", "<s>"), ...: bos, eos, unk, sep, pad, cls, mask, then the model's own in the
  /// order of the file.
  std::vector<std::pair<std::string, std::string>> special_tokens;
  /// Tokens to add beside those of tokenizer.json, or with other flags. Named special tokens come
  /// last, as special.
  std::vector<AddedToken> added_tokens;
  /// Whether add_bos_token or add_eos_token is there, which replaces the file's post-processor.
  bool sets_surroundings = false;
  bool add_bos = false;
  bool add_eos = false;
  std::optional<bool> truncates_from_left;  // truncation_side

  std::optional<std::string> special_token(const std::string& name) const;
};

/// From tokenizer_config.json, and special_tokens_map.json where the former has no
/// added_tokens_decoder; both may be absent. `known` are the tokens of tokenizer.json, whose flags
/// a special token that is given by its name alone keeps; `defaults` names special tokens where no
/// file does.
TokenizerConfig read_tokenizer_config(
    const std::filesystem::path& directory, const std::vector<AddedToken>& known,
    const std::vector<std::pair<std::string, std::string>>& defaults);

}  // namespace temper::data
