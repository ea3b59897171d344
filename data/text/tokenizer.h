#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/encoding.h"
#include "data/text/padding.h"
#include "data/text/truncation.h"

/// Text to token ids and back, exactly as PyPI's `tokenizers` 0.23.3 does from the same
/// tokenizer.json.
///
///     Tokenizer tokenizer = Tokenizer::load("models/llama");
///     std::vector<int32_t> ids = tokenizer.encode("Hello");          // with the post-processor's
///     special tokens std::string text = tokenizer.decode(ids, /*skip_special_tokens=*/true);
///
/// A Tokenizer is a cheap handle to immutable tables: copy it freely; all const members may be
/// called from several threads.
namespace temper::data {

class Tokenizer {
 public:
  /// Reads tokenizer.json, or the older files of old_forms.h, and, where present,
  /// tokenizer_config.json of a model directory (a directory with only tokenizer files is enough).
  /// Throws UserError naming file and component for what is missing, malformed or not supported.
  /// `added`: more special tokens; those that are no token yet get the next ids.
  static Tokenizer load(const std::filesystem::path& directory,
                        const std::vector<std::string>& added = {});

  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const;
  /// With all that is known of each token. Throws UserError for a `truncation` that cannot be had
  /// (see truncation.h; its max_length must leave room for the special tokens).
  Encoding encode_with_offsets(std::string_view text, bool add_special_tokens = true,
                               const std::optional<Truncation>& truncation = std::nullopt) const;
  /// Two texts as one input, as cross-encoders and question answering take them.
  Encoding encode_pair(std::string_view first, std::string_view second,
                       bool add_special_tokens = true,
                       const std::optional<Truncation>& truncation = std::nullopt) const;
  std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// The settings of tokenizer.json. No function here applies them: transformers, too, leaves them
  /// to each call.
  const std::optional<Truncation>& truncation() const;
  const std::optional<Padding>& padding() const;
  /// Whether texts that are too long lose their beginning: tokenizer_config.json's
  /// truncation_side, else what tokenizer.json says.
  bool truncates_from_left() const;

  /// Number of ids, added tokens included (`len(tokenizer)`): one above the largest id.
  int64_t size() const;
  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// The token's spelling in the vocabulary; "" for an id outside it.
  std::string id_to_token(int32_t id) const;
  bool is_special(int32_t id) const;
  /// Ids that load()'s `added` has made.
  const std::vector<int32_t>& added_ids() const;
  /// Writes load()'s `added` into the tokenizer files of `directory`, copies of those it was loaded
  /// from.
  void add_to_files(const std::filesystem::path& directory) const;

  /// From tokenizer_config.json (special_tokens_map.json where that lacks them); unset where the
  /// model has none.
  std::optional<int32_t> bos_id() const;
  std::optional<int32_t> eos_id() const;
  std::optional<int32_t> pad_id() const;
  /// Contents of the named special tokens ("bos_token" -> "<s>"), the variables of chat templates.
  const std::vector<std::pair<std::string, std::string>>& special_tokens() const;
  /// Hex hash of everything that decides ids: part of the token cache's key.
  const std::string& fingerprint() const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace temper::data
