#include "data/text/unicode.h"

#include <algorithm>
#include <iterator>
#include <span>

#include <simdjson.h>

#include "data/text/unicode_tables.h"

namespace temper::data {

namespace {

bool in_ranges(std::span<const CodePointRange> ranges, uint32_t code_point) {
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), code_point,
      [](uint32_t value, const CodePointRange& range) { return value < range.first; });
  return after != ranges.begin() && code_point <= std::prev(after)->last;
}

// How many bytes at `at` form one character (positive) or one maximal ill-formed part (negative).
int part_size(std::string_view bytes, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t {
    return at + i < bytes.size() ? static_cast<uint8_t>(bytes[at + i]) : 0;
  };
  const uint32_t first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return -1;
  const int size = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  // The second byte's range excludes overlong forms, surrogates and what lies above U+10FFFF.
  const uint32_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const uint32_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return -1;
  for (int i = 2; i < size; ++i) {
    if ((byte(static_cast<size_t>(i)) & 0xC0) != 0x80) return -i;
  }
  return size;
}

}  // namespace

CharacterSet::CharacterSet(std::span<const CodePointRange> ranges) {
  for (const CodePointRange& range : ranges) add(range.first, range.last);
}

void CharacterSet::add(uint32_t first, uint32_t last) {
  for (uint32_t c = first; c <= last; ++c) members_->set(c);
}

void append_utf8(std::string& text, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

bool is_whitespace(uint32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool is_numeric(uint32_t code_point) {
  if (code_point < 0x80) return code_point >= '0' && code_point <= '9';
  return in_ranges(numeric_ranges(), code_point);
}

bool is_punctuation(uint32_t code_point) {
  static const CharacterSet members(punctuation_ranges());
  return members.contains(code_point);
}

int script_of(uint32_t code_point) {
  const std::span<const ScriptRange> ranges = script_ranges();
  const auto after = std::upper_bound(
      ranges.begin(), ranges.end(), code_point,
      [](uint32_t value, const ScriptRange& range) { return value < range.first; });
  const bool found = after != ranges.begin() && code_point <= std::prev(after)->last;
  return found ? static_cast<int>(std::prev(after)->script) : -1;
}

bool is_word(uint32_t code_point) { return in_ranges(word_ranges(), code_point); }

bool is_valid_utf8(std::string_view bytes) {
  return simdjson::validate_utf8(bytes.data(), bytes.size());
}

std::string repair_utf8(std::string_view bytes, std::vector<uint32_t>* origin) {
  constexpr std::string_view kReplacement = "\xEF\xBF\xBD";
  std::string result;
  result.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const int part = part_size(bytes, at);
    const size_t size = static_cast<size_t>(part < 0 ? -part : part);
    const std::string_view piece = part < 0 ? kReplacement : bytes.substr(at, size);
    result.append(piece);
    if (origin != nullptr) origin->insert(origin->end(), piece.size(), static_cast<uint32_t>(at));
    at += size;
  }
  if (origin != nullptr) origin->push_back(static_cast<uint32_t>(bytes.size()));
  return result;
}

}  // namespace temper::data
