#pragma once

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

/// UTF-8 and the few character classes the tokenizer pipeline asks for. Every function but the last
/// two expects valid UTF-8.
namespace temper::data {

struct CodePointRange;

/// A set of code points, made once and asked often (136 KB).
class CharacterSet {
 public:
  CharacterSet() = default;
  explicit CharacterSet(std::span<const CodePointRange> ranges);
  void add(uint32_t first, uint32_t last);
  bool contains(uint32_t code_point) const { return members_->test(code_point); }

 private:
  std::unique_ptr<std::bitset<0x110000>> members_ = std::make_unique<std::bitset<0x110000>>();
};

struct CodePoint {
  uint32_t value;
  uint32_t size;  // bytes, 1 to 4
};

/// The character that begins at text[at].
inline CodePoint decode_utf8(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t { return static_cast<uint8_t>(text[at + i]); };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  if (first < 0xE0) return {(first & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if (first < 0xF0) return {(first & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F), 3};
  return {(first & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F),
          4};
}
void append_utf8(std::string& text, uint32_t code_point);

/// Bytes of the character whose first byte this is.
inline size_t utf8_size(char first) {
  const auto byte = static_cast<uint8_t>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}
inline bool continues_character(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

/// The 25 code points with the property White_Space.
bool is_whitespace(uint32_t code_point);
/// General category N* (Unicode 16), what the Digits pre-tokenizer splits on.
bool is_numeric(uint32_t code_point);
/// ASCII punctuation and symbols, and general category P* of the package's table.
bool is_punctuation(uint32_t code_point);
/// The number of the character's script (see unicode_tables.h), -1 for spaces and unassigned ones.
int script_of(uint32_t code_point);
/// `\w` of added tokens with single_word: alphabetic, marks, decimal digits, connector punctuation,
/// joiners (Unicode 16).
bool is_word(uint32_t code_point);

bool is_valid_utf8(std::string_view bytes);
/// Valid UTF-8: every maximal ill-formed part becomes one U+FFFD (as Unicode recommends and
/// browsers, Python and Rust do). `origin`, where given, receives for each byte of the result, and
/// for its end, the position in `bytes` it came from.
std::string repair_utf8(std::string_view bytes, std::vector<uint32_t>* origin = nullptr);

}  // namespace temper::data
