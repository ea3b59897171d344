#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

/// GPT-2's alphabet: each byte has a visible letter (a space is U+0120), so that vocabularies are
/// printable text.
namespace temper::data {

/// The UTF-8 of the byte's letter.
std::string_view byte_letter(uint8_t byte);
/// The byte that a letter stands for; unset for a character outside the alphabet.
std::optional<uint8_t> letter_byte(uint32_t code_point);

}  // namespace temper::data
