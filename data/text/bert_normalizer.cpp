#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "data/text/character_changes.h"
#include "data/text/normalizer.h"
#include "data/text/unicode.h"
#include "data/text/unicode_tables.h"

/// BertNormalizer: cleans the text, sets Chinese characters apart, takes accents away and makes
/// lower case, nearly always in one go over the text.
namespace temper::data {

namespace {

// What happens to a character, in this order.
enum Step : uint8_t {
  kRemove = 1,
  kMakeSpace = 2,
  kSetApart = 4,
  kDecompose = 8,
  kRemoveMark = 16,
  kLower = 32,
};
constexpr uint8_t kAllSteps = 63;
// A mark that stays and may change places with others: its text must be put in order as a whole.
constexpr uint8_t kMoves = 64;

struct Options {
  bool clean;
  bool chinese;
  bool strip_accents;
  bool lower;
};

class BertNormalizer {
 public:
  explicit BertNormalizer(Options options) {
    if (options.clean) {
      add(bert_removed_ranges(), kRemove);
      add(bert_space_ranges(), kMakeSpace);
      steps_[' '] = 0;
    }
    if (options.chinese) add(chinese_ranges(), kSetApart);
    if (options.strip_accents) add_decompositions();
    if (options.lower) {
      for (const LowercaseMapping& row : lowercase_mappings()) steps_[row.code_point] |= kLower;
    }
  }

  void operator()(Passage& passage) const {
    if (!has_moving_marks(passage.text())) return take_steps(passage, kAllSteps);
    take_steps(passage, kRemove | kMakeSpace | kSetApart);
    apply_normal_form(NormalForm::kNfd, passage);
    take_steps(passage, kRemoveMark | kLower);
  }

 private:
  template <typename Range>
  void add(std::span<const Range> ranges, uint8_t step) {
    for (const Range& range : ranges) {
      for (uint32_t c = range.first; c <= range.last; ++c) steps_[c] |= step;
    }
  }

  void add_decompositions() {
    add(combining_classes(), kMoves);
    for (const CodePointRange& range : bert_accent_ranges()) {
      for (uint32_t c = range.first; c <= range.last; ++c) {
        steps_[c] = static_cast<uint8_t>((steps_[c] | kRemoveMark) & ~kMoves);
      }
    }
    for (const Decomposition& row : canonical_decompositions()) {
      steps_[row.code_point] |= kDecompose;
      for (const uint32_t part : row.parts) steps_[row.code_point] |= steps_[part] & kMoves;
    }
    for (uint32_t c = kFirstHangulSyllable; c <= kLastHangulSyllable; ++c) steps_[c] |= kDecompose;
  }

  bool has_moving_marks(std::string_view text) const {
    for (size_t at = 0; at < text.size();) {
      const CodePoint c = decode_utf8(text, at);
      if ((steps_[c.value] & (kMoves | kRemove)) == kMoves) return true;
      at += c.size;
    }
    return false;
  }

  void take_steps(Passage& passage, uint8_t allowed) const {
    change_characters(passage, [&](uint32_t c, std::string& text) {
      const uint8_t steps = steps_[c] & allowed;
      if (steps == 0) return false;
      if ((steps & kRemove) != 0) return true;
      if ((steps & kMakeSpace) != 0) {
        text = ' ';
        return true;
      }
      if ((steps & kSetApart) != 0) text += ' ';
      if ((steps & kDecompose) != 0) {
        const CanonicalParts parts = canonical_parts(c);
        for (size_t i = 0; i < parts.size() && parts[i] != 0; ++i) {
          put(parts[i], steps_[parts[i]] & allowed, text);
        }
      } else {
        put(c, steps, text);
      }
      if ((steps & kSetApart) != 0) text += ' ';
      return true;
    });
  }

  static void put(uint32_t c, uint8_t steps, std::string& text) {
    if ((steps & kRemoveMark) != 0) return;
    if ((steps & kLower) == 0 || !append_lower(c, text)) append_utf8(text, c);
  }

  static constexpr uint32_t kFirstHangulSyllable = 0xAC00;
  static constexpr uint32_t kLastHangulSyllable = 0xD7A3;
  std::vector<uint8_t> steps_ = std::vector<uint8_t>(0x110000);  // by code point
};

}  // namespace

Normalizer build_bert(const Component& component) {
  const bool lower = component.flag("lowercase");
  const auto accents = component.value.find("strip_accents");
  const bool strip_accents = accents == component.value.end() || accents->is_null()
                                 ? lower
                                 : component.flag("strip_accents");
  const auto normalizer = std::make_shared<const BertNormalizer>(
      Options{.clean = component.flag("clean_text"),
              .chinese = component.flag("handle_chinese_chars"),
              .strip_accents = strip_accents,
              .lower = lower});
  return [normalizer](Passage& passage) { (*normalizer)(passage); };
}

}  // namespace temper::data
