#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "data/text/component.h"
#include "data/text/passage.h"

/// Post-processors: special tokens around the text, and offsets without the blanks at a token's
/// ends.
namespace temper::data {

/// Spaces at a token's ends, in characters: the letters that ByteLevel gives a space, and any
/// whitespace.
struct Blanks {
  uint32_t leading = 0;
  uint32_t trailing = 0;
};
Blanks count_blanks(std::string_view token);

/// A text's tokens on their way out. offsets (bytes of `text`) and blanks are empty when nobody
/// asked for offsets.
struct Tokens {
  std::string_view text;
  std::vector<int32_t> ids;
  std::vector<Span> offsets;
  std::vector<Blanks> blanks;
};

using PostProcessor = std::function<void(Tokens&, bool add_special_tokens)>;

/// From tokenizer.json's "post_processor"; null gives one that does nothing (and tests false).
PostProcessor build_post_processor(const Component& component);

/// What bos and eos flags of tokenizer_config.json make: `before`, the text, `after`.
PostProcessor surround(std::vector<int32_t> before, std::vector<int32_t> after);

}  // namespace temper::data
