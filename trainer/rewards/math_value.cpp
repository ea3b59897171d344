#include "trainer/rewards/math_value.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "trainer/rewards/latex_text.h"
#include "trainer/rewards/math_parser.h"

namespace temper::trainer {
namespace {

using Kind = MathValue::Kind;

constexpr size_t kMaxLength = 2000;  // bytes; longer texts are no answers
constexpr int kMaxDepth = 20;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

// 1,000: a comma that belongs to a number.
bool is_thousands_comma(std::string_view text, size_t at) {
  if (at == 0 || !is_digit(text[at - 1])) return false;
  size_t digits = 0;
  while (at + 1 + digits < text.size() && is_digit(text[at + 1 + digits])) ++digits;
  size_t before = 0;
  while (before < at && is_digit(text[at - 1 - before])) ++before;
  return digits == 3 && before <= 3;
}

// The pieces between separators that no bracket holds.
std::vector<std::string_view> split(std::string_view text, std::string_view separator,
                                    bool thousands = false) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const std::string_view rest = text.substr(i);
    if (rest.starts_with(separator) && !(thousands && is_thousands_comma(text, i))) {
      parts.push_back(trimmed(text.substr(begin, i - begin)));
      begin = i += separator.size();
    } else if (rest.starts_with("(") || rest.starts_with("[") || rest.starts_with("{") ||
               rest.starts_with("\\{")) {
      const size_t end = after_bracket(text, i);
      i = end == std::string_view::npos ? text.size() : end;
    } else {
      i += rest.starts_with("\\") ? 2 : 1;
    }
  }
  parts.push_back(trimmed(text.substr(begin)));
  return parts;
}

MathValue collection(Kind kind, std::vector<MathValue> parts, std::string text = "") {
  MathValue value;
  value.kind = kind;
  value.parts = std::move(parts);
  value.text = std::move(text);
  return value;
}

struct Relation {
  std::string_view sign;
  const char* name;
  bool flipped;
};
constexpr Relation kRelations[] = {
    {"\\le", "<=", false}, {"\\ge", "<=", true}, {"\\ne", "!=", false},
    {"<=", "<=", false},   {">=", "<=", true},   {"!=", "!=", false},
    {"<", "<", false},     {">", "<", true},     {"=", "=", false},
};

// x, f(x), (x, y), A_1, "the answer": what an answer is called in front of "=".
bool is_name(std::string_view text) {
  bool letters = false;
  if (!text.empty() && is_digit(text.front())) return false;
  for (const char c : text) {
    letters = letters || is_letter(c);
    if (!is_letter(c) && !is_digit(c) &&
        std::string_view(" _\\(),{}'").find(c) == std::string_view::npos) {
      return false;
    }
  }
  return letters;
}

class Reader {
 public:
  /// What a whole text says; `thousands` while no bracket holds it.
  MathValue value(std::string_view text, bool thousands) {
    if (++depth_ > kMaxDepth) throw Unreadable("nested too deeply");
    MathValue result = at_depth(trimmed(text), thousands);
    --depth_;
    return result;
  }

 private:
  MathValue at_depth(std::string_view text, bool thousands) {
    if (text.empty()) throw Unreadable("empty");
    if (const size_t in = text.find("\\in");
        in != std::string_view::npos && in + 3 < text.size() && !is_letter(text[in + 3])) {
      return value(text.substr(in + 3), thousands);
    }
    const auto sides = split(text, "=");
    if (sides.size() == 2 && is_name(sides[0])) return value(sides[1], thousands);

    if (const auto parts = split(text, "\\cup"); parts.size() > 1) {
      return collection(Kind::kUnion, values(parts));
    }
    if (const auto parts = split(text, ",", thousands); parts.size() > 1) {
      return collection(Kind::kList, values(parts, thousands));
    }
    if (text.starts_with("\\begin{")) return matrix(text);
    if (text == "\\emptyset") return collection(Kind::kSet, {});
    if (auto inside = bracketed(text)) return *std::move(inside);
    if (auto related = relation(text)) return *std::move(related);
    return formula(text, thousands);
  }

  std::vector<MathValue> values(const std::vector<std::string_view>& texts,
                                bool thousands = false) {
    std::vector<MathValue> result;
    for (const std::string_view text : texts) {
      if (!text.empty()) result.push_back(value(text, thousands));
    }
    return result;
  }

  // A text that one pair of brackets holds: a set, a tuple, an interval, or a value in brackets.
  std::optional<MathValue> bracketed(std::string_view text) {
    const bool set = text.starts_with("\\{");
    if (!set && !text.starts_with("(") && !text.starts_with("[") && !text.starts_with("{")) {
      return std::nullopt;
    }
    if (after_bracket(text, 0) != text.size()) return std::nullopt;
    const size_t size = set ? 2 : 1;
    if (set && !text.ends_with("\\}")) throw Unreadable("brackets of different kinds");
    const std::string_view inner = trimmed(text.substr(size, text.size() - 2 * size));
    const auto parts = split(inner, ",");
    if (set) return collection(Kind::kSet, values(parts));
    if (parts.size() == 1) return value(inner, true);
    if (text.front() == '{') return collection(Kind::kSet, values(parts));
    return collection(Kind::kTuple, values(parts), {text.front(), text.back()});
  }

  MathValue matrix(std::string_view text) {
    const size_t open = text.find('}') + 1, close = text.rfind("\\end{");
    if (open == 0 || close == std::string_view::npos || close < open || !text.ends_with("}")) {
      throw Unreadable("a matrix without an end");
    }
    std::vector<MathValue> rows;
    for (const std::string_view row : split(text.substr(open, close - open), "\\\\")) {
      if (!row.empty()) rows.push_back(collection(Kind::kTuple, values(split(row, "&")), "()"));
    }
    return collection(Kind::kMatrix, std::move(rows));
  }

  // Of an equation x = 3, 3; of 2 + 3 = 5, 5; else left - right with its sign.
  std::optional<MathValue> relation(std::string_view text) {
    for (const Relation& known : kRelations) {
      const auto sides = split(text, known.sign);
      if (sides.size() < 2) continue;
      const MathNumber last = parse_formula(sides.back(), 1, true);
      const MathNumber before = parse_formula(sides[sides.size() - 2], 1, true);
      MathValue result;
      if (known.sign == "=" && !before.letters) {
        result.number = last;
        return result;
      }
      if (sides.size() > 2) throw Unreadable("a chain of relations");
      result.kind = Kind::kRelation;
      result.text = known.name;
      result.number = known.flipped ? last - before : before - last;
      return result;
    }
    return std::nullopt;
  }

  static MathValue formula(std::string_view text, bool thousands) {
    MathValue result;
    result.number = parse_formula(text, 1, thousands);
    if (text.find("\\pm") == std::string_view::npos) return result;
    MathValue other;
    other.number = parse_formula(text, -1, thousands);
    return collection(Kind::kList, {std::move(result), std::move(other)});
  }

  int depth_ = 0;
};

std::optional<MathValue> read(std::string_view text) {
  try {
    return Reader().value(text, true);
  } catch (const Unreadable&) {
    return std::nullopt;
  }
}

std::optional<MathValue> read_words(std::string_view text) {
  MathValue value;
  value.kind = Kind::kText;
  for (const char c : text) {
    if (is_letter(c)) {
      value.text.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    } else if (std::string_view(" .'-()").find(c) == std::string_view::npos) {
      return std::nullopt;
    }
  }
  if (value.text.empty()) return std::nullopt;
  return value;
}

bool same_in_any_order(const std::vector<MathValue>& a, std::vector<MathValue> b) {
  if (a.size() != b.size()) return false;
  for (const MathValue& part : a) {
    const auto found = std::find_if(
        b.begin(), b.end(), [&](const MathValue& other) { return same_value(part, other); });
    if (found == b.end()) return false;
    b.erase(found);
  }
  return true;
}

bool same_in_order(const std::vector<MathValue>& a, const std::vector<MathValue>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_value);
}

}  // namespace

std::vector<MathValue> read_math(std::string_view text, Words words) {
  std::vector<MathValue> readings;
  if (text.size() > kMaxLength) return readings;
  const PlainLatex plain = plain_latex(text);
  const auto add = [&](std::optional<MathValue> value) {
    if (value) readings.push_back(*std::move(value));
  };
  const bool only_letters =
      plain.text.size() > 1 && std::all_of(plain.text.begin(), plain.text.end(), is_letter);
  if (!only_letters) add(read(plain.text));
  const std::string_view bare = without_unit(plain.text);
  if (bare.size() < plain.text.size()) add(read(bare));
  if (readings.empty() && (plain.had_words || words == Words::kAnywhere)) {
    add(read_words(plain.text));
  }
  return readings;
}

bool same_value(const MathValue& a, const MathValue& b) {
  const bool lists = a.kind == Kind::kList || b.kind == Kind::kList;
  const bool sets = a.kind == Kind::kSet || b.kind == Kind::kSet;
  const bool tuples = a.kind == Kind::kTuple || b.kind == Kind::kTuple;
  if (a.kind != b.kind) {
    // A bare list may be meant as either.
    if (lists && sets) return same_in_any_order(a.parts, b.parts);
    if (lists && tuples) return same_in_order(a.parts, b.parts);
    return false;
  }
  switch (a.kind) {
    case Kind::kNumber:
      return same_number(a.number, b.number);
    case Kind::kText:
      return a.text == b.text;
    case Kind::kList:
    case Kind::kSet:
    case Kind::kUnion:
      return same_in_any_order(a.parts, b.parts);
    case Kind::kTuple:
      return a.text == b.text && same_in_order(a.parts, b.parts);
    case Kind::kMatrix:
      return same_in_order(a.parts, b.parts);
    case Kind::kRelation:
      return a.text == b.text && proportional(a.number, b.number, a.text.front() == '<');
  }
  return false;
}

}  // namespace temper::trainer
