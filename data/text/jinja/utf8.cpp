#include "data/text/jinja/utf8.h"

#include <algorithm>
#include <cctype>
#include <iterator>

namespace temper::data::jinja {
namespace {

struct Range {
  char32_t first, last;
};
struct Run {
  char32_t first, last;
  int32_t step, delta;
};
struct Expansion {
  char32_t from;
  const char* to;
};
#include "data/text/jinja/unicode_tables.inc"

template <size_t N>
bool in(const Range (&ranges)[N], char32_t c) {
  const Range* end = ranges + N;
  const Range* found = std::lower_bound(
      ranges, end, c, [](const Range& range, char32_t point) { return range.last < point; });
  return found != end && found->first <= c;
}

template <size_t N, size_t M>
void append_mapped(std::string& out, const Run (&runs)[N], const Expansion (&several)[M],
                   char32_t c) {
  const Expansion* expansion =
      std::lower_bound(several, several + M, c,
                       [](const Expansion& row, char32_t point) { return row.from < point; });
  if (expansion != several + M && expansion->from == c) {
    out += expansion->to;
    return;
  }
  const Run* run = std::lower_bound(
      runs, runs + N, c, [](const Run& row, char32_t point) { return row.last < point; });
  const bool mapped =
      run != runs + N && run->first <= c && (c - run->first) % char32_t(run->step) == 0;
  utf8_append(out, mapped ? char32_t(int32_t(c) + run->delta) : c);
}

void append_lower(std::string& out, char32_t c) {
  if (c < 0x80)
    out += char(std::tolower(int(c)));
  else
    append_mapped(out, kLower, kLowerSeveral, c);
}

void append_upper(std::string& out, char32_t c) {
  if (c < 0x80)
    out += char(std::toupper(int(c)));
  else
    append_mapped(out, kUpper, kUpperSeveral, c);
}

void append_title(std::string& out, char32_t c) {
  if (c < 0x80)
    out += char(std::toupper(int(c)));
  else
    append_mapped(out, kTitle, kTitleSeveral, c);
}

bool is_cased(char32_t c) { return c < 0x80 ? std::isalpha(int(c)) != 0 : in(kCased, c); }

/// Lower case of the character at the start of `rest`; a sigma that ends a word takes its final
/// form.
void append_lower_in_word(std::string& out, char32_t c, bool after_cased,
                          std::string_view following) {
  constexpr char32_t kSigma = 0x3a3, kFinalSigma = 0x3c2;
  if (c == kSigma && after_cased && (following.empty() || !is_cased(utf8_first(following)))) {
    utf8_append(out, kFinalSigma);
  } else {
    append_lower(out, c);
  }
}

bool valid_continuation(std::string_view text, size_t count) {
  if (text.size() <= count) return false;
  for (size_t i = 1; i <= count; ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xc0) != 0x80) return false;
  }
  return true;
}

}  // namespace

size_t utf8_length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  const size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc2 ? 1 : 0;
  return more > 0 && valid_continuation(text, more) ? more + 1 : 1;
}

char32_t utf8_first(std::string_view text) {
  const auto byte = [&](size_t i) { return char32_t(static_cast<unsigned char>(text[i])); };
  switch (utf8_length(text)) {
    case 2:
      return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3:
      return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    case 4:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 |
             (byte(3) & 0x3f);
    default:
      return byte(0);
  }
}

std::string_view utf8_last(std::string_view text) {
  for (size_t bytes = std::min<size_t>(4, text.size()); bytes > 1; --bytes) {
    const std::string_view tail = text.substr(text.size() - bytes);
    if (utf8_length(tail) == bytes) return tail;
  }
  return text.substr(text.size() - 1);
}

size_t utf8_count(std::string_view text) {
  size_t count = 0;
  for (; !text.empty(); ++count) text.remove_prefix(utf8_length(text));
  return count;
}

void utf8_append(std::string& text, char32_t c) {
  if (c < 0x80) {
    text += char(c);
  } else if (c < 0x800) {
    text += char(0xc0 | c >> 6);
    text += char(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    text += char(0xe0 | c >> 12);
    text += char(0x80 | (c >> 6 & 0x3f));
    text += char(0x80 | (c & 0x3f));
  } else {
    text += char(0xf0 | c >> 18);
    text += char(0x80 | (c >> 12 & 0x3f));
    text += char(0x80 | (c >> 6 & 0x3f));
    text += char(0x80 | (c & 0x3f));
  }
}

size_t utf8_offset(std::string_view text, size_t index) {
  size_t offset = 0;
  for (; index > 0 && offset < text.size(); --index) offset += utf8_length(text.substr(offset));
  return offset;
}

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

bool is_printable(char32_t c) { return c < 0x80 ? c >= 0x20 && c < 0x7f : in(kPrintable, c); }
bool is_alpha(char32_t c) { return c < 0x80 ? std::isalpha(int(c)) != 0 : in(kAlpha, c); }
bool is_digit(char32_t c) { return c < 0x80 ? std::isdigit(int(c)) != 0 : in(kDigit, c); }
bool is_lower(char32_t c) { return c < 0x80 ? std::islower(int(c)) != 0 : in(kLowerCase, c); }
bool is_upper(char32_t c) { return c < 0x80 ? std::isupper(int(c)) != 0 : in(kUpperCase, c); }

std::string lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool after_cased = false;
  while (!text.empty()) {
    const char32_t c = utf8_first(text);
    text.remove_prefix(utf8_length(text));
    append_lower_in_word(out, c, after_cased, text);
    after_cased = is_cased(c);
  }
  return out;
}

std::string upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (; !text.empty(); text.remove_prefix(utf8_length(text))) append_upper(out, utf8_first(text));
  return out;
}

std::string title(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  bool after_cased = false;
  while (!text.empty()) {
    const char32_t c = utf8_first(text);
    text.remove_prefix(utf8_length(text));
    if (after_cased)
      append_lower_in_word(out, c, true, text);
    else
      append_title(out, c);
    after_cased = is_cased(c);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  std::string out;
  append_title(out, utf8_first(text));
  return out + lower(text.substr(utf8_length(text)));
}

std::string_view strip(std::string_view text, const std::string* characters, Side side) {
  const auto strips = [&](std::string_view character) {
    return characters ? characters->find(character) != std::string::npos
                      : is_space(utf8_first(character));
  };
  if (side != Side::kRight) {
    while (!text.empty() && strips(text.substr(0, utf8_length(text))))
      text.remove_prefix(utf8_length(text));
  }
  if (side != Side::kLeft) {
    while (!text.empty() && strips(utf8_last(text))) text.remove_suffix(utf8_last(text).size());
  }
  return text;
}

}  // namespace temper::data::jinja
