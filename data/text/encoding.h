#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

/// What is known of each token of a text, or of a pair of texts, as in PyPI's `tokenizers`.
namespace temper::data {

constexpr int32_t kNoWord = -1;

/// One value a token in each column.
struct Encoding {
  std::vector<int32_t> ids;
  /// As the vocabulary spells them; added tokens, and Unigram's unknown ones, as they stand in the
  /// text.
  std::vector<std::string> tokens;
  /// [start, end) in bytes of the text of the pair that the token is from; (0, 0) for special
  /// tokens and padding.
  std::vector<std::pair<uint32_t, uint32_t>> offsets;
  /// The number of the token's word in its text (added tokens count as words), or kNoWord.
  std::vector<int32_t> words;
  std::vector<int32_t> type_ids;
  std::vector<uint8_t> special_tokens_mask;  // 1: of the post-processor, or padding
  std::vector<uint8_t> attention_mask;       // 0: padding
  /// What truncation has cut off, in windows that are like the whole; these have none themselves.
  std::vector<Encoding> overflowing;
};

/// Tokens that are in no text.
Encoding special_encoding(std::span<const int32_t> ids, std::span<const std::string> tokens,
                          int32_t type_id);
/// The tokens [begin, end), without `overflowing`.
Encoding slice(const Encoding& encoding, size_t begin, size_t end);
/// Puts the tokens of `more` after those of `encoding`; what overflows in either stays as it is.
void append(Encoding& encoding, const Encoding& more);
/// The pieces one after the other. Their windows make windows of the whole: each of one piece with
/// each of every other.
Encoding concatenate(std::vector<Encoding> pieces);

}  // namespace temper::data
