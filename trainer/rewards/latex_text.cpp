#include "trainer/rewards/latex_text.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

namespace temper::trainer {
namespace {

using Pair = std::pair<std::string_view, std::string_view>;

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

template <class Names>
bool contains(const Names& names, std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

constexpr std::string_view kWordCommands[] = {"text",   "textbf", "textit", "textrm",
                                              "mathrm", "mbox",   "textsf", "operatorname"};
constexpr std::string_view kFontCommands[] = {"mathbf",     "mathit", "mathsf", "mathbb", "mathcal",
                                              "boldsymbol", "bm",     "boxed",  "fbox",   "emph"};
constexpr std::string_view kDroppedCommands[] = {
    "left", "right", "big",  "Big",          "bigg",      "Bigg",   "bigl",
    "bigr", "Bigl",  "Bigr", "displaystyle", "textstyle", "limits", "degree"};
constexpr Pair kSpelledCommands[] = {{"dfrac", "\\frac"},  {"tfrac", "\\frac"},
                                     {"cfrac", "\\frac"},  {"cdot", "*"},
                                     {"times", "*"},       {"div", "/"},
                                     {"lbrace", "\\{"},    {"rbrace", "\\}"},
                                     {"lvert", "|"},       {"rvert", "|"},
                                     {"vert", "|"},        {"infin", "\\infty"},
                                     {"lbrack", "["},      {"rbrack", "]"},
                                     {"colon", ":"},       {"leq", "\\le"},
                                     {"leqslant", "\\le"}, {"geq", "\\ge"},
                                     {"geqslant", "\\ge"}, {"neq", "\\ne"},
                                     {"lt", "<"},          {"gt", ">"},
                                     {"quad", " "},        {"qquad", " "},
                                     {"approx", "="},      {"varnothing", "\\emptyset"}};
constexpr Pair kCharacters[] = {{"−", "-"},        {"–", "-"},       {"×", "*"},
                                {"·", "*"},        {"÷", "/"},       {"π", "\\pi "},
                                {"∞", "\\infty "}, {"√", "\\sqrt "}, {"°", ""},
                                {"£", ""},         {"€", ""},        {"¥", ""},
                                {"≤", "\\le "},    {"≥", "\\ge "},   {"≠", "\\ne "},
                                {"≈", "="},        {"∪", "\\cup "},  {"∅", "\\emptyset "},
                                {"²", "^2"},       {"³", "^3"},      {"½", "\\frac{1}{2}"},
                                {"±", "\\pm "},    {"∈", "\\in "},   {"\u00A0", " "}};

std::string_view spelling(const Pair* first, const Pair* last, std::string_view name,
                          std::string_view otherwise) {
  const Pair* row = std::find_if(first, last, [&](const Pair& pair) { return pair.first == name; });
  return row == last ? otherwise : row->second;
}

size_t skip_spaces(std::string_view text, size_t at) {
  while (at < text.size() && is_space(text[at])) ++at;
  return at;
}

// After ^\circ, ^{\circ}, ^\degree or ^° at `at`, which are written after degrees; else `at`.
size_t after_degrees(std::string_view text, size_t at) {
  size_t i = skip_spaces(text, at + 1);
  const bool braced = i < text.size() && text[i] == '{';
  if (braced) i = skip_spaces(text, i + 1);
  for (const std::string_view sign : {"\\circ", "\\degree", "°"}) {
    if (text.substr(i).starts_with(sign)) {
      i += sign.size();
      if (!braced) return i;
      i = skip_spaces(text, i);
      return i < text.size() && text[i] == '}' ? i + 1 : at;
    }
  }
  return at;
}

class Plainer {
 public:
  explicit Plainer(std::string_view latex) : in_(latex) {}

  PlainLatex run() {
    while (at_ < in_.size()) step();
    return std::move(out_);
  }

 private:
  void step() {
    const std::string_view rest = in_.substr(at_);
    const char c = rest.front();
    if (c == '\\') return command();
    if (rest.starts_with("{,}")) {
      at_ += 3;
    } else if (c == '^' && after_degrees(in_, at_) != at_) {
      at_ = after_degrees(in_, at_);
    } else if (c == '$') {
      ++at_;
    } else if (c == '~') {
      put(" ");
      ++at_;
    } else {
      for (const Pair& pair : kCharacters) {
        if (rest.starts_with(pair.first)) {
          put(pair.second);
          at_ += pair.first.size();
          return;
        }
      }
      out_.text.push_back(is_space(c) ? ' ' : c);
      ++at_;
    }
  }

  void command() {
    size_t end = at_ + 1;
    while (end < in_.size() && is_letter(in_[end])) ++end;
    if (end == at_ + 1) return punctuation();
    const std::string_view name = in_.substr(at_ + 1, end - at_ - 1);
    at_ = end;
    if (contains(kDroppedCommands, name)) {
      if ((name == "left" || name == "right") && at_ < in_.size() && in_[at_] == '.') ++at_;
    } else if (contains(kWordCommands, name) || contains(kFontCommands, name)) {
      const bool words = contains(kWordCommands, name);
      out_.had_words = out_.had_words || words;
      unwrap(words ? " " : "");
    } else if (name == "begin" || name == "end") {
      out_.text.append("\\").append(name);
      const size_t open = skip_spaces(in_, at_);
      const size_t close = std::min(in_.find('}', open), in_.size() - 1);
      out_.text.append(in_.substr(open, close + 1 - std::min(open, close)));
      at_ = close + 1;
    } else {
      const std::string_view spelled =
          spelling(std::begin(kSpelledCommands), std::end(kSpelledCommands), name, "");
      if (spelled.empty()) {
        out_.text.append("\\").append(name);
        // Keeps the end of the name where a letter stands after a space.
        if (at_ < in_.size() && is_space(in_[at_])) put(" ");
      } else {
        put(spelled);
      }
    }
  }

  // A backslash before what is no letter.
  void punctuation() {
    const char c = at_ + 1 < in_.size() ? in_[at_ + 1] : '\\';
    at_ = std::min(at_ + 2, in_.size());
    switch (c) {
      case ',':
      case '!':
      case ';':
      case ':':
      case '>':
      case ' ':  // between the digits of 10\,000 nothing, else a space
        if (out_.text.empty() || !is_digit(out_.text.back()) || at_ >= in_.size() ||
            !is_digit(in_[at_])) {
          put(" ");
        }
        return;
      case '{':
        return put("\\{");
      case '}':
        return put("\\}");
      case '\\':
        return put("\\\\");
      case '%':
        return put("%");
      case '|':
        return put("|");
      default:  // \$ \( \[ \) \] \# \&
        return;
    }
  }

  // The content of the braces that follow in place of a command and its braces.
  void unwrap(std::string_view around) {
    const size_t open = skip_spaces(in_, at_);
    if (open >= in_.size() || in_[open] != '{') return;
    const size_t end = after_bracket(in_, open);
    if (end == std::string_view::npos) return;
    const PlainLatex inner = Plainer(in_.substr(open + 1, end - open - 2)).run();
    out_.had_words = out_.had_words || inner.had_words;
    put(around);
    put(inner.text);
    put(around);
    at_ = end;
  }

  void put(std::string_view text) { out_.text.append(text); }

  std::string_view in_;
  size_t at_ = 0;
  PlainLatex out_;
};

void replace_words_by_commas(std::string& text) {
  for (const std::string_view word : {" and ", " or "}) {
    for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at)) {
      text.replace(at, word.size(), ", ");
    }
  }
}

constexpr std::string_view kShortUnits[] = {
    "m",  "cm", "mm", "km", "g",  "kg",  "mg", "s",  "h",  "hr", "ml", "mL", "L", "l", "ft", "in",
    "mi", "lb", "oz", "am", "pm", "mph", "AM", "PM", "GB", "MB", "kB", "kW", "W", "V", "N",  "J"};

}  // namespace

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

size_t after_bracket(std::string_view text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) {
      ++i;
      if (text[i] != '{' && text[i] != '}') continue;
    }
    const char c = text[i];
    if (c == '(' || c == '[' || c == '{') ++depth;
    if ((c == ')' || c == ']' || c == '}') && --depth == 0) return i + 1;
  }
  return std::string_view::npos;
}

PlainLatex plain_latex(std::string_view latex) {
  latex = trimmed(latex);
  while (latex.starts_with("**") || latex.starts_with("__")) latex.remove_prefix(2);
  while (latex.ends_with("**") || latex.ends_with("__")) latex.remove_suffix(2);
  PlainLatex plain = Plainer(latex).run();
  replace_words_by_commas(plain.text);
  std::string_view text = trimmed(plain.text);
  while (!text.empty() && std::string_view(".,;:").find(text.back()) != std::string_view::npos) {
    text = trimmed(text.substr(0, text.size() - 1));
  }
  plain.text = std::string(text);
  return plain;
}

std::string_view without_unit(std::string_view plain) {
  size_t begin = plain.size();
  while (begin > 0) {
    const char c = plain[begin - 1];
    if (is_letter(c) || c == ' ' || c == '.' || c == '/') {
      --begin;
      continue;
    }
    // The power of a unit: ^2, ^{2}, ^{-2} after a letter.
    size_t i = begin;
    if (i > 0 && plain[i - 1] == '}') --i;
    if (i == 0 || !is_digit(plain[i - 1])) break;
    --i;
    if (i > 0 && plain[i - 1] == '-') --i;
    if (i > 0 && plain[i - 1] == '{') --i;
    if (i == 0 || plain[i - 1] != '^') break;
    --i;
    while (i > 0 && plain[i - 1] == ' ') --i;
    if (i == 0 || !is_letter(plain[i - 1])) break;
    begin = i;
  }
  if (begin == 0 || begin == plain.size()) return plain;
  const char before = plain[begin - 1];
  if (!is_digit(before) && std::string_view(")}%").find(before) == std::string_view::npos) {
    return plain;
  }
  size_t word = begin;
  while (word < plain.size() && !is_letter(plain[word])) ++word;
  size_t end = word;
  while (end < plain.size() && is_letter(plain[end])) ++end;
  const bool spaced = plain[begin] == ' ';
  const bool unit =
      contains(kShortUnits, plain.substr(word, end - word)) || (spaced && end - word >= 3);
  return unit ? trimmed(plain.substr(0, begin)) : plain;
}

}  // namespace temper::trainer
