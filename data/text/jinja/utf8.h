#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

/// Code points of UTF-8 text, and what Python's str knows about them (its Unicode version is that
/// of the generated table). Bytes that are not UTF-8 count as one character each.
namespace temper::data::jinja {

/// Bytes of the first character; `text` must not be empty.
size_t utf8_length(std::string_view text);
/// The first character; `text` must not be empty.
char32_t utf8_first(std::string_view text);
/// The last character's bytes; `text` must not be empty.
std::string_view utf8_last(std::string_view text);
size_t utf8_count(std::string_view text);
void utf8_append(std::string& text, char32_t code_point);
/// Byte position of character `index` (at most the count).
size_t utf8_offset(std::string_view text, size_t index);

bool is_space(char32_t c);
bool is_printable(char32_t c);
bool is_alpha(char32_t c);
bool is_digit(char32_t c);
bool is_lower(char32_t c);
bool is_upper(char32_t c);

/// str.lower, upper, title, capitalize, swapcase.
std::string lower(std::string_view text);
std::string upper(std::string_view text);
std::string title(std::string_view text);
std::string capitalize(std::string_view text);

/// str.strip and its halves: characters of `characters`, or white space when that is null.
enum class Side { kBoth, kLeft, kRight };
std::string_view strip(std::string_view text, const std::string* characters,
                       Side side = Side::kBoth);

}  // namespace temper::data::jinja
