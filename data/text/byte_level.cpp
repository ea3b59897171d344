#include "data/text/byte_level.h"

#include <array>

#include "data/text/unicode.h"

namespace temper::data {

namespace {

// Printable Latin-1 bytes are their own letters; the others follow from U+0100 on.
constexpr uint32_t kFirstInvented = 0x100;
constexpr uint32_t kLetterEnd = kFirstInvented + 68;

struct Alphabet {
  std::array<std::string, 256> letters;
  std::array<int16_t, kLetterEnd> bytes;

  Alphabet() {
    bytes.fill(-1);
    uint32_t invented = kFirstInvented;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const uint32_t letter = printable ? byte : invented++;
      append_utf8(letters[byte], letter);
      bytes[letter] = static_cast<int16_t>(byte);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string_view byte_letter(uint8_t byte) { return alphabet().letters[byte]; }

std::optional<uint8_t> letter_byte(uint32_t code_point) {
  if (code_point >= kLetterEnd || alphabet().bytes[code_point] < 0) return std::nullopt;
  return static_cast<uint8_t>(alphabet().bytes[code_point]);
}

}  // namespace temper::data
