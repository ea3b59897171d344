#pragma once

#include <cstdint>
#include <optional>

#include "data/text/component.h"
#include "data/text/encoding.h"

/// How texts of too many tokens are cut.
namespace temper::data {

struct Truncation {
  enum class Strategy { kLongestFirst, kOnlyFirst, kOnlySecond };

  int64_t max_length = 0;  // tokens, 0 or more, special ones included
  int64_t stride = 0;      // tokens that a window shares with the one before it
  Strategy strategy = Strategy::kLongestFirst;
  bool from_left = false;  // a text loses its beginning
};

/// tokenizer.json's "truncation"; unset where that is null.
std::optional<Truncation> parse_truncation(const Component& component);

/// Cuts the texts so that both together have at most max_length tokens; `second` is null for a
/// text that is no pair. What is cut off becomes windows in `overflowing`, none of them longer
/// than what is left of the text. Throws UserError where the text that the strategy names is too
/// short to make up for all, and where the stride is not below the length that a text is cut to.
void truncate(Encoding& first, Encoding* second, const Truncation& truncation);

}  // namespace temper::data
