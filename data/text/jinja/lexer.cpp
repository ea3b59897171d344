#include "data/text/jinja/lexer.h"

#include <algorithm>
#include <cctype>
#include <optional>

#include "data/text/jinja/utf8.h"

namespace temper::data::jinja {
namespace {

std::string normalize_newlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_name_start(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80);
}
bool is_name_part(char c) {
  return is_name_start(c) || std::isdigit(static_cast<unsigned char>(c));
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalize_newlines(source)) {}

  std::vector<Token> run() {
    while (position_ < source_.size()) root();
    add(Token::Kind::kEnd, "", position_);
    return std::move(tokens_);
  }

 private:
  /// Text up to the next tag, and the tag.
  void root() {
    size_t tag = position_;
    while ((tag = source_.find('{', tag)) != std::string::npos) {
      if (tag + 1 < source_.size() &&
          std::string_view("{%#").find(source_[tag + 1]) != std::string_view::npos)
        break;
      ++tag;
    }
    if (tag == std::string::npos) {
      add_text(position_, source_.size());
      position_ = source_.size();
      return;
    }
    const char kind = source_[tag + 1];
    size_t inside = tag + 2;
    const char mark = at(inside) == '-' || at(inside) == '+' ? at(inside) : '\0';
    if (mark) ++inside;
    add_text(position_, stripped_end(position_, tag, mark, kind == '{'));
    if (kind == '#') {
      comment(tag, inside);
    } else if (const auto after = kind == '%' ? raw_begin(inside) : std::nullopt) {
      raw(tag, *after);
    } else {
      add(kind == '{' ? Token::Kind::kOutputBegin : Token::Kind::kBlockBegin, "", tag);
      position_ = inside;
      code(kind == '{');
    }
  }

  /// Where the text before a tag ends once white space is taken away: all of it for `-`, else, for
  /// tags that are not outputs, what stands between the tag and the start of its line.
  size_t stripped_end(size_t begin, size_t tag, char mark, bool output) const {
    const std::string_view text = std::string_view(source_).substr(begin, tag - begin);
    if (mark == '-') return begin + strip(text, nullptr, Side::kRight).size();
    if (mark == '+' || output) return tag;
    const size_t newline = text.rfind('\n');
    if (newline == text.npos && !at_line_start_) return tag;
    const size_t line = newline == text.npos ? 0 : newline + 1;
    return strip(text.substr(line), nullptr).empty() ? begin + line : tag;
  }

  void comment(size_t tag, size_t inside) {
    const size_t end = source_.find("#}", inside);
    if (end == std::string::npos) fail("missing end of comment tag", tag);
    const char mark = end > inside ? source_[end - 1] : '\0';
    close(end + 2, mark);
  }

  /// Position after `raw %}` when that is what follows.
  std::optional<size_t> raw_begin(size_t position) const {
    position = skip_space(position);
    if (source_.compare(position, 3, "raw") != 0) return std::nullopt;
    position = skip_space(position + 3);
    const bool stripping = at(position) == '-';
    if (stripping) ++position;
    if (source_.compare(position, 2, "%}") != 0) return std::nullopt;
    return stripping ? skip_space(position + 2) : position + 2;
  }

  void raw(size_t tag, size_t begin) {
    for (size_t end = begin; (end = source_.find("{%", end)) != std::string::npos; end += 2) {
      size_t inside = end + 2;
      const char mark = at(inside) == '-' || at(inside) == '+' ? at(inside) : '\0';
      inside = skip_space(inside + (mark ? 1 : 0));
      if (source_.compare(inside, 6, "endraw") != 0) continue;
      inside = skip_space(inside + 6);
      const char closing = at(inside) == '-' || at(inside) == '+' ? at(inside) : '\0';
      if (closing) ++inside;
      if (source_.compare(inside, 2, "%}") != 0) continue;
      at_line_start_ = source_[begin - 1] == '\n';
      add_text(begin, stripped_end(begin, end, mark, false));
      close(inside + 2, closing);
      return;
    }
    fail("missing end of raw block", tag);
  }

  /// After a comment, block or raw block: `-` takes white space, nothing takes one newline, `+`
  /// takes nothing.
  void close(size_t position, char mark) {
    if (mark == '-')
      position = skip_space(position);
    else if (mark != '+' && at(position) == '\n')
      ++position;
    position_ = position;
    at_line_start_ = source_[position - 1] == '\n';
  }

  void code(bool output) {
    const size_t start = position_;
    std::string brackets;  // closing ones that are awaited
    for (;;) {
      position_ = skip_space(position_);
      if (position_ >= source_.size())
        fail(output ? "'{{' without '}}'" : "'{%' without '%}'", start);
      if (brackets.empty() && ends(output)) return;
      token(brackets);
    }
  }

  bool ends(bool output) {
    const char* closing = output ? "}}" : "%}";
    size_t position = position_;
    const char mark = at(position) == '-' || (!output && at(position) == '+') ? at(position) : '\0';
    if (mark) ++position;
    if (source_.compare(position, 2, closing) != 0) return false;
    add(output ? Token::Kind::kOutputEnd : Token::Kind::kBlockEnd, "", position_);
    close(position + 2, output && !mark ? '+' : mark);
    return true;
  }

  void token(std::string& brackets) {
    const char c = source_[position_];
    if (std::isdigit(static_cast<unsigned char>(c))) {
      number();
    } else if (is_name_start(c)) {
      const size_t begin = position_;
      while (position_ < source_.size() && is_name_part(source_[position_])) ++position_;
      add(Token::Kind::kName, source_.substr(begin, position_ - begin), begin);
    } else if (c == '\'' || c == '"') {
      string(c);
    } else {
      symbol(brackets);
    }
  }

  void symbol(std::string& brackets) {
    static constexpr std::string_view kSymbols[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (std::string_view symbol : kSymbols) {
      if (source_.compare(position_, symbol.size(), symbol) != 0) continue;
      if (symbol == "(" || symbol == "[" || symbol == "{") {
        brackets += symbol == "(" ? ')' : symbol == "[" ? ']' : '}';
      } else if (symbol == ")" || symbol == "]" || symbol == "}") {
        if (brackets.empty() || brackets.back() != symbol[0])
          fail("unexpected '" + std::string(symbol) + "'", position_);
        brackets.pop_back();
      }
      add(Token::Kind::kOperator, std::string(symbol), position_);
      position_ += symbol.size();
      return;
    }
    fail("unexpected character '" +
             source_.substr(position_, utf8_length(std::string_view(source_).substr(position_))) +
             "'",
         position_);
  }

  /// Digits with single underscores between them, from `position`; returns the end.
  size_t digits(size_t position, int (*accepts)(int)) const {
    while (accepts(static_cast<unsigned char>(at(position))) ||
           (at(position) == '_' && accepts(static_cast<unsigned char>(at(position + 1))))) {
      ++position;
    }
    return position;
  }

  void number() {
    const size_t begin = position_;
    Token::Kind kind = Token::Kind::kInteger;
    const char base = char(std::tolower(at(begin + 1)));
    size_t end = digits(begin, std::isdigit);
    if (source_[begin] == '0' && (base == 'x' || base == 'o' || base == 'b')) {
      end = digits(begin + 2, std::isxdigit);
    } else {
      if (at(end) == '.' && std::isdigit(static_cast<unsigned char>(at(end + 1)))) {
        kind = Token::Kind::kFloat;
        end = digits(end + 1, std::isdigit);
      }
      size_t exponent = end;
      if (at(exponent) == 'e' || at(exponent) == 'E') {
        ++exponent;
        if (at(exponent) == '+' || at(exponent) == '-') ++exponent;
        if (std::isdigit(static_cast<unsigned char>(at(exponent)))) {
          kind = Token::Kind::kFloat;
          end = digits(exponent, std::isdigit);
        }
      }
    }
    std::string text = source_.substr(begin, end - begin);
    std::erase(text, '_');
    add(kind, text, begin);
    position_ = end;
  }

  void string(char quote) {
    const size_t begin = position_++;
    std::string text;
    while (at(position_) != quote) {
      if (position_ >= source_.size()) fail("a string without its closing quote", begin);
      if (source_[position_] == '\\')
        escape(text);
      else
        text += source_[position_++];
    }
    ++position_;
    add(Token::Kind::kString, std::move(text), begin);
  }

  void escape(std::string& text) {
    static constexpr std::string_view kNames = "nrtabfv\\'\"", kValues = "\n\r\t\a\b\f\v\\'\"";
    const char c = at(++position_);
    if (position_ >= source_.size()) return;
    ++position_;
    if (c == '\n') return;
    if (const size_t found = kNames.find(c); found != kNames.npos) {
      text += kValues[found];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      utf8_append(text, code_point(c == 'x' ? 2 : c == 'u' ? 4 : 8, 16));
    } else if (c >= '0' && c <= '7') {
      --position_;
      size_t count = 1;
      while (count < 3 && at(position_ + count) >= '0' && at(position_ + count) <= '7') ++count;
      utf8_append(text, code_point(count, 8));
    } else if (c == 'N') {
      fail("named characters (\\N{...}) are not supported: write the character itself",
           position_ - 2);
    } else {
      text += '\\';
      text += c;
    }
  }

  char32_t code_point(size_t count, int base) {
    char32_t value = 0;
    for (size_t i = 0; i < count; ++i, ++position_) {
      const auto digit = static_cast<unsigned char>(at(position_));
      if (!std::isxdigit(digit)) fail("a truncated escape in a string", position_);
      value = value * char32_t(base) +
              char32_t(std::isdigit(digit) ? digit - '0' : std::tolower(digit) - 'a' + 10);
    }
    if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000))
      fail("an escape that is no character", position_);
    return value;
  }

  char at(size_t position) const { return position < source_.size() ? source_[position] : '\0'; }

  size_t skip_space(size_t position) const {
    const std::string_view rest =
        std::string_view(source_).substr(std::min(position, source_.size()));
    return position + (rest.size() - strip(rest, nullptr, Side::kLeft).size());
  }

  void add_text(size_t begin, size_t end) {
    if (end > begin) add(Token::Kind::kText, source_.substr(begin, end - begin), begin);
  }

  void add(Token::Kind kind, std::string text, size_t position) {
    advance(position);
    tokens_.push_back({kind, std::move(text), line_, int(position - line_begin_) + 1});
  }

  /// Counts lines up to `position`, which never goes back.
  void advance(size_t position) {
    for (; counted_ < position; ++counted_) {
      if (source_[counted_] == '\n') {
        ++line_;
        line_begin_ = counted_ + 1;
      }
    }
  }

  [[noreturn]] void fail(const std::string& what, size_t position) {
    if (position < counted_) {
      line_ = 1;
      counted_ = line_begin_ = 0;
    }
    advance(position);
    throw SyntaxError(what, line_, int(position - line_begin_) + 1);
  }

  const std::string source_;
  size_t position_ = 0;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
  int line_ = 1;
  size_t counted_ = 0, line_begin_ = 0;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace temper::data::jinja
