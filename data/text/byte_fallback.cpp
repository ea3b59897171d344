#include "data/text/byte_fallback.h"

#include <algorithm>
#include <string>

namespace temper::data {

FallbackTokens::FallbackTokens(const Vocabulary& vocabulary) {
  constexpr const char* kDigits = "0123456789ABCDEF";
  for (size_t byte = 0; byte < ids_.size(); ++byte) {
    ids_[byte] =
        vocabulary.find(std::string{'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'});
  }
}

bool FallbackTokens::spells(std::string_view text) const {
  return std::all_of(text.begin(), text.end(), [&](char byte) { return id(byte) != kNoToken; });
}

}  // namespace temper::data
