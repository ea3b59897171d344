#include "data/text/clusters.h"

#include <memory>
#include <vector>

#include "data/text/unicode.h"
#include "data/text/unicode_tables.h"

namespace temper::data {

namespace {

constexpr uint32_t kJoiner = 0x200D;

uint32_t flags_of(uint32_t c) {
  static const std::vector<uint8_t> table = [] {
    std::vector<uint8_t> flags(0x110000);
    for (const ClusterFlags& row : cluster_flags()) {
      for (uint32_t member = row.first; member <= row.last; ++member) {
        flags[member] = static_cast<uint8_t>(row.flags);
      }
    }
    return flags;
  }();
  return table[c];
}

enum class Hangul { kNone, kLead, kVowel, kTail, kOpenSyllable, kClosedSyllable };

Hangul hangul_of(uint32_t c) {
  const auto within = [c](uint32_t first, uint32_t last) { return c >= first && c <= last; };
  if (within(0x1100, 0x115F) || within(0xA960, 0xA97C)) return Hangul::kLead;
  if (within(0x1160, 0x11A7) || within(0xD7B0, 0xD7C6)) return Hangul::kVowel;
  if (within(0x11A8, 0x11FF) || within(0xD7CB, 0xD7FB)) return Hangul::kTail;
  if (!within(0xAC00, 0xD7A3)) return Hangul::kNone;
  return (c - 0xAC00) % 28 == 0 ? Hangul::kOpenSyllable : Hangul::kClosedSyllable;
}

bool joins_hangul(uint32_t left, uint32_t right) {
  const Hangul before = hangul_of(left);
  const Hangul after = hangul_of(right);
  switch (before) {
    case Hangul::kLead:
      return after != Hangul::kNone && after != Hangul::kTail;
    case Hangul::kVowel:
    case Hangul::kOpenSyllable:
      return after == Hangul::kVowel || after == Hangul::kTail;
    case Hangul::kTail:
    case Hangul::kClosedSyllable:
      return after == Hangul::kTail;
    case Hangul::kNone:
      break;
  }
  return false;
}

// What the characters so far say about the next one.
struct Before {
  uint32_t last;
  bool pictographic = false;         // a pictographic character and its extensions
  bool pictographic_joiner = false;  // and a joiner after them
  bool consonant = false;            // a consonant and its extensions
  bool linked = false;               // with a linker among them

  void add(uint32_t c) {
    const uint32_t flags = flags_of(c);
    pictographic_joiner = pictographic && c == kJoiner;
    pictographic = (flags & kPictographic) != 0 || (pictographic && (flags & kExtend) != 0);
    const bool extends = consonant && (flags & (kConjunct | kLinker)) != 0;
    linked = extends && (linked || (flags & kLinker) != 0);
    consonant = (flags & kConsonant) != 0 || extends;
    last = c;
  }
  bool takes(uint32_t c) const {
    if (last == '\r' && c == '\n') return true;
    const uint32_t flags = flags_of(c);
    if (((flags_of(last) | flags) & kControl) != 0) return false;
    if ((flags & kJoins) != 0 || (flags_of(last) & kPrepend) != 0) return true;
    if (pictographic_joiner && (flags & kPictographic) != 0) return true;
    if (linked && (flags & kConsonant) != 0) return true;
    return joins_hangul(last, c);
  }
};

}  // namespace

size_t cluster_end(std::string_view text, size_t begin) {
  const CodePoint first = decode_utf8(text, begin);
  Before before{.last = first.value};
  before.add(first.value);
  size_t end = begin + first.size;
  while (end < text.size()) {
    const CodePoint next = decode_utf8(text, end);
    if (!before.takes(next.value)) break;
    before.add(next.value);
    end += next.size;
  }
  return end;
}

}  // namespace temper::data
