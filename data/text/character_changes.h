#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/text/passage.h"
#include "data/text/unicode.h"

/// What the normalizers share that look at one character at a time.
namespace temper::data {

/// Rewrites each character for which change(c, text) is true as `text`, which may be empty.
template <typename Change>
void change_characters(Passage& passage, const Change& change) {
  const std::string& text = passage.text();
  std::optional<Rewrite> rewrite;
  std::string changed;
  uint32_t done = 0;
  for (uint32_t at = 0; at < text.size();) {
    const CodePoint c = decode_utf8(text, at);
    changed.clear();
    if (change(c.value, changed)) {
      if (!rewrite) rewrite.emplace(passage);
      rewrite->keep({done, at});
      if (!changed.empty()) rewrite->put(changed, at);
      done = at + c.size;
    }
    at += c.size;
  }
  if (!rewrite) return;
  rewrite->keep({done, static_cast<uint32_t>(text.size())});
  rewrite->finish();
}

/// Appends the character in lower case; false where it has no such form.
bool append_lower(uint32_t character, std::string& text);

}  // namespace temper::data
