#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/text/component.h"
#include "data/text/encoding.h"

/// Post-processors: special tokens around a text or a pair of texts, and offsets without the blanks
/// at a token's ends.
namespace temper::data {

/// A piece of the answer: a text's tokens, with those that were put around them, or special tokens
/// alone.
struct Part {
  Encoding encoding;
  std::string_view text;  // that the offsets point into; of special tokens none
};

/// Takes one part for each text and leaves those of the answer in order. Throws UserError for a
/// pair where the file has no form for one.
using PostProcessor = std::function<void(std::vector<Part>& parts, bool add_special_tokens)>;

/// From tokenizer.json's "post_processor"; null gives one that does nothing (and tests false).
PostProcessor build_post_processor(const Component& component);

/// A special token: its spelling and its id.
using SpecialToken = std::pair<std::string, int32_t>;
/// What bos and eos flags of tokenizer_config.json make of each text: `before`, the text, `after`,
/// of type 0 around the first and 1 around the second.
PostProcessor surround(const std::vector<SpecialToken>& before,
                       const std::vector<SpecialToken>& after);

}  // namespace temper::data
