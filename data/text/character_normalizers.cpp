#include <algorithm>

#include "data/text/character_changes.h"
#include "data/text/normalizer.h"
#include "data/text/unicode.h"
#include "data/text/unicode_tables.h"

namespace temper::data {

namespace {

void remove_characters(Passage& passage, const CharacterSet& members) {
  change_characters(passage, [&](uint32_t c, std::string&) { return members.contains(c); });
}

void replace_by_space(Passage& passage, const CharacterSet& members) {
  change_characters(passage, [&](uint32_t c, std::string& text) {
    text += ' ';
    return c != ' ' && members.contains(c);
  });
}

void lowercase(Passage& passage) { change_characters(passage, append_lower); }

}  // namespace

bool append_lower(uint32_t c, std::string& text) {
  if (c < 0x80) {
    if (c < 'A' || c > 'Z') return false;
    text.push_back(static_cast<char>(c - 'A' + 'a'));
    return true;
  }
  const auto table = lowercase_mappings();
  const auto found = std::lower_bound(
      table.begin(), table.end(), c,
      [](const LowercaseMapping& row, uint32_t value) { return row.code_point < value; });
  if (found == table.end() || found->code_point != c) return false;
  for (const uint32_t part : found->parts) {
    if (part != 0) append_utf8(text, part);
  }
  return true;
}

Normalizer build_lowercase(const Component&) { return lowercase; }

Normalizer build_strip_accents(const Component&) {
  return [](Passage& passage) {
    static const CharacterSet accents(accent_ranges());
    remove_characters(passage, accents);
  };
}

Normalizer build_nmt(const Component&) {
  return [](Passage& passage) {
    static const CharacterSet removed(nmt_removed_ranges());
    static const CharacterSet spaces(nmt_space_ranges());
    remove_characters(passage, removed);
    replace_by_space(passage, spaces);
  };
}

}  // namespace temper::data
