#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/component.h"

/// Byte-pair encoding: a word's characters are merged pair by pair, best rank first, until no known
/// pair is left.
///
/// Words that were seen lately come from a cache that each thread keeps for itself, so tokenize()
/// may be called from several threads.
namespace temper::data {

/// A token of a word and how many of the word's bytes it stands for.
struct WordToken {
  int32_t id;
  uint32_t size;
};

class Bpe {
 public:
  /// From tokenizer.json's "model". Throws UserError for merges that name unknown tokens, ids out
  /// of range, dropout, ...
  explicit Bpe(const Component& component);

  /// Appends the word's tokens. The word must not be empty.
  void tokenize(std::string_view word, std::vector<WordToken>& tokens) const;

  std::optional<int32_t> token_to_id(std::string_view token) const;
  /// nullptr for an id outside the vocabulary.
  const std::string* id_to_token(int32_t id) const;
  /// Number of entries, which may be less than the largest id.
  int64_t entries() const;
  /// One above the largest id.
  int64_t end_id() const;

 private:
  struct Tables;
  std::shared_ptr<const Tables> tables_;
};

}  // namespace temper::data
