#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "data/text/vocabulary.h"

/// Byte fallback: a character outside the vocabulary is written as the tokens "<0xHH>" of its
/// bytes.
namespace temper::data {

class FallbackTokens {
 public:
  explicit FallbackTokens(const Vocabulary& vocabulary);

  /// kNoToken where the vocabulary lacks that byte.
  int32_t id(char byte) const { return ids_[static_cast<uint8_t>(byte)]; }
  /// Whether there is a token for every byte of the text.
  bool spells(std::string_view text) const;

 private:
  std::array<int32_t, 256> ids_;
};

}  // namespace temper::data
