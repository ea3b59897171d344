#include <algorithm>
#include <optional>

#include "data/text/normalizer.h"
#include "data/text/unicode.h"
#include "data/text/unicode_tables.h"

namespace temper::data {

namespace {

// Rewrites each character for which change(c, text) is true as `text`, which may be empty.
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

void remove_characters(Passage& passage, const CharacterSet& members) {
  change_characters(passage, [&](uint32_t c, std::string&) { return members.contains(c); });
}

void replace_by_space(Passage& passage, const CharacterSet& members) {
  change_characters(passage, [&](uint32_t c, std::string& text) {
    text = " ";
    return c != ' ' && members.contains(c);
  });
}

void lowercase(Passage& passage) {
  change_characters(passage, [](uint32_t c, std::string& text) {
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
  });
}

void surround_chinese(Passage& passage) {
  static const CharacterSet chinese(chinese_ranges());
  change_characters(passage, [](uint32_t c, std::string& text) {
    if (!chinese.contains(c)) return false;
    text = " ";
    append_utf8(text, c);
    text += " ";
    return true;
  });
}

}  // namespace

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

Normalizer build_bert(const Component& component) {
  const bool lower = component.flag("lowercase");
  const auto accents = component.value.find("strip_accents");
  const bool strip_accents = accents == component.value.end() || accents->is_null()
                                 ? lower
                                 : component.flag("strip_accents");
  return [=, clean = component.flag("clean_text"),
          chinese = component.flag("handle_chinese_chars")](Passage& passage) {
    static const CharacterSet removed(bert_removed_ranges());
    static const CharacterSet spaces(bert_space_ranges());
    static const CharacterSet marks(bert_accent_ranges());
    if (clean) {
      remove_characters(passage, removed);
      replace_by_space(passage, spaces);
    }
    if (chinese) surround_chinese(passage);
    if (strip_accents) {
      apply_normal_form(NormalForm::kNfd, passage);
      remove_characters(passage, marks);
    }
    if (lower) lowercase(passage);
  };
}

}  // namespace temper::data
