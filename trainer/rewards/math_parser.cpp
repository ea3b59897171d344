#include "trainer/rewards/math_parser.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <string>

#include "trainer/rewards/latex_text.h"

namespace temper::trainer {
namespace {

constexpr int kMaxDepth = 60;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

struct NamedFunction {
  std::string_view name;
  double (*function)(double);
};
constexpr NamedFunction kFunctions[] = {
    {"sin", [](double x) { return std::sin(x); }},
    {"cos", [](double x) { return std::cos(x); }},
    {"tan", [](double x) { return std::tan(x); }},
    {"cot", [](double x) { return 1 / std::tan(x); }},
    {"sec", [](double x) { return 1 / std::cos(x); }},
    {"csc", [](double x) { return 1 / std::sin(x); }},
    {"arcsin", [](double x) { return std::asin(x); }},
    {"arccos", [](double x) { return std::acos(x); }},
    {"arctan", [](double x) { return std::atan(x); }},
    {"sinh", [](double x) { return std::sinh(x); }},
    {"cosh", [](double x) { return std::cosh(x); }},
    {"tanh", [](double x) { return std::tanh(x); }},
    {"exp", [](double x) { return std::exp(x); }},
    {"ln", [](double x) { return std::log(x); }},
    {"lg", [](double x) { return std::log10(x); }},
    {"log", [](double x) { return std::log10(x); }},
};

constexpr std::string_view kGreek[] = {
    "alpha", "beta",  "gamma",  "delta",  "epsilon", "varepsilon", "zeta",  "eta",
    "theta", "iota",  "kappa",  "lambda", "mu",      "nu",         "xi",    "rho",
    "sigma", "tau",   "phi",    "varphi", "chi",     "psi",        "omega", "Gamma",
    "Delta", "Theta", "Lambda", "Sigma",  "Phi",     "Psi",        "Omega", "ell"};

/// Recursive descent:
///     sum      product (+ product)*            product  factor ((* or /)? factor)*
///     factor   atom (^ exponent)? !*           atom     number, letter, group, command
class Parser {
 public:
  Parser(std::string_view text, int sign_of_pm, bool thousands)
      : text_(text), sign_of_pm_(sign_of_pm), thousands_(thousands) {}

  MathNumber run() {
    MathNumber result = sum();
    if (!rest().empty()) throw Unreadable("text after the formula");
    return result;
  }

 private:
  MathNumber sum() {
    const Nested nested(depth_);
    MathNumber result = signed_product();
    for (;;) {
      if (take("+")) {
        result = result + signed_product();
      } else if (take("-")) {
        result = result - signed_product();
      } else if (take_command("pm")) {
        result = result + with_sign(signed_product(), sign_of_pm_);
      } else if (take_command("mp")) {
        result = result + with_sign(signed_product(), -sign_of_pm_);
      } else {
        return result;
      }
    }
  }

  MathNumber signed_product() {
    if (take("-")) return -signed_product_again();
    if (take("+")) return signed_product_again();
    if (take_command("pm")) return with_sign(signed_product_again(), sign_of_pm_);
    if (take_command("mp")) return with_sign(signed_product_again(), -sign_of_pm_);
    return product();
  }

  MathNumber signed_product_again() {
    const Nested nested(depth_);
    return signed_product();
  }

  static MathNumber with_sign(MathNumber number, int sign) { return sign < 0 ? -number : number; }

  MathNumber product() {
    MathNumber result = factor();
    for (;;) {
      if (rest().starts_with("**")) return result;  // a power of what is none
      if (take("*")) {
        result = result * signed_factor();
      } else if (take("/") || take(":")) {
        result = result / signed_factor();
      } else if (begins_factor()) {
        result = result * factor();
      } else {
        return result;
      }
    }
  }

  MathNumber signed_factor() { return take("-") ? -factor() : factor(); }

  // Something that multiplies without a sign: 2x, 3\pi, 2(x + 1); never a number after a number.
  bool begins_factor() {
    const std::string_view next = rest();
    if (next.empty()) return false;
    const char c = next.front();
    if (is_letter(c) || c == '(' || c == '[' || c == '{') return true;
    if (c != '\\') return false;
    const std::string_view name = command_name(next);
    return name != "pm" && name != "mp" && !name.empty();
  }

  MathNumber factor() {
    MathNumber result = atom();
    if (take("^") || take("**")) {
      result = power(result, exponent());
    }
    while (take("!")) result = factorial(result);
    if (take("%")) {
      if (!rest().empty()) throw Unreadable("text after a percentage");
      result.percent = true;
    }
    return result;
  }

  MathNumber exponent() {
    const Nested nested(depth_);
    if (take("-")) return -exponent();
    if (rest().starts_with("{")) return group();
    return atom();
  }

  MathNumber atom() {
    const Nested nested(depth_);
    const std::string_view next = rest();
    if (next.empty()) throw Unreadable("an end where a number should be");
    const char c = next.front();
    if (is_digit(c) || (c == '.' && next.size() > 1 && is_digit(next[1]))) return number();
    if (c == '(' || c == '[' || c == '{') return group();
    if (c == '|') {
      ++at_;
      const MathNumber inner = sum();
      if (!take("|")) throw Unreadable("| without an end");
      return apply([](double x) { return std::abs(x); }, inner);
    }
    if (c == '\\') return command();
    if (is_letter(c)) return word();
    throw Unreadable("no formula");
  }

  MathNumber group() {
    skip_spaces();
    const char open = text_[at_++];
    const MathNumber result = sum();
    if (!take(open == '(' ? ")" : open == '[' ? "]" : "}")) throw Unreadable("open bracket");
    return result;
  }

  MathNumber number() {
    const size_t begin = at_;
    std::string digits;
    digits_into(digits);
    if (thousands_ && digits.size() <= 3) {
      while (at_ + 3 < text_.size() && text_[at_] == ',' && is_digit(text_[at_ + 1]) &&
             is_digit(text_[at_ + 2]) && is_digit(text_[at_ + 3]) &&
             (at_ + 4 == text_.size() || !is_digit(text_[at_ + 4]))) {
        ++at_;
        digits_into(digits);
      }
    }
    const bool integer = at_ == text_.size() || text_[at_] != '.';
    if (at_ < text_.size() && text_[at_] == '.') {
      digits.push_back('.');
      ++at_;
      digits_into(digits);
    }
    if (!power_of_ten_into(digits) && integer && at_ - begin == digits.size()) {
      if (at_ < text_.size() && text_[at_] == '_') return in_base(digits);
      return mixed(number_from(digits));
    }
    return number_from(digits);
  }

  void digits_into(std::string& digits) {
    while (at_ < text_.size() && is_digit(text_[at_])) digits.push_back(text_[at_++]);
  }

  // 1e3, 1.5E-3.
  bool power_of_ten_into(std::string& digits) {
    size_t i = at_;
    if (i == text_.size() || (text_[i] != 'e' && text_[i] != 'E')) return false;
    ++i;
    const bool is_signed = i < text_.size() && (text_[i] == '-' || text_[i] == '+');
    const bool negative = is_signed && text_[i] == '-';
    if (is_signed) ++i;
    if (i == text_.size() || !is_digit(text_[i])) return false;
    at_ = i;
    digits.append(negative ? "e-" : "e");
    digits_into(digits);
    return true;
  }

  // 101_2, 7F is not read: digits only.
  MathNumber in_base(const std::string& digits) {
    ++at_;
    const MathNumber base = argument();
    if (!base.exact || base.exact->bottom != 1 || base.exact->top < 2 || base.exact->top > 10) {
      throw Unreadable("base of a number");
    }
    MathNumber result = number_of(WideInt{0});
    for (const char digit : digits) {
      if (digit - '0' >= base.exact->top) throw Unreadable("a digit that the base has not");
      result = result * base + number_of(WideInt{digit - '0'});
    }
    return result;
  }

  // 1\frac{1}{2} and 1 1/2 are one and a half.
  MathNumber mixed(const MathNumber& whole) {
    const bool spaced = at_ < text_.size() && text_[at_] == ' ';
    const size_t begin = at_;
    const std::string_view next = rest();
    size_t end = 0;
    if (next.starts_with("\\frac")) {
      end = 5;
      while (end < next.size() &&
             (is_digit(next[end]) || next[end] == '{' || next[end] == '}' || next[end] == ' ')) {
        ++end;
      }
    } else if (spaced) {
      while (end < next.size() && is_digit(next[end])) ++end;
      if (end == 0 || end == next.size() || next[end] != '/') end = 0;
      if (end > 0) {
        const size_t slash = end++;
        while (end < next.size() && is_digit(next[end])) ++end;
        if (end == slash + 1) end = 0;
      }
    }
    if (end > 0) {
      const size_t start = at_;
      try {
        const MathNumber part = Parser(text_.substr(start, end), sign_of_pm_, false).run();
        if (part.exact && part.exact->top > 0 && part.exact->top < part.exact->bottom) {
          at_ = start + end;
          return whole + part;
        }
      } catch (const Unreadable&) {  // a product then, if anything
      }
    }
    at_ = begin;
    return whole;
  }

  MathNumber command() {
    const std::string_view name = command_name(rest());
    if (name.empty()) throw Unreadable("no formula");
    at_ += name.size() + 1;
    if (name == "frac") {
      const MathNumber top = argument();
      return top / argument();
    }
    if (name == "sqrt") return root_of();
    if (name == "pi") return number_of(std::numbers::pi);
    if (name == "infty") return infinite_number();
    if (std::find(std::begin(kGreek), std::end(kGreek), name) != std::end(kGreek)) {
      return number_of_letter(std::string(name) + subscript());
    }
    return function(name);
  }

  MathNumber root_of() {
    MathNumber degree = number_of(WideInt{2});
    if (take("[")) {
      degree = sum();
      if (!take("]")) throw Unreadable("open bracket");
    }
    return root(argument(), degree);
  }

  // Of \frac and \sqrt: a group, one digit, one letter or a command.
  MathNumber argument() {
    skip_spaces();
    if (at_ < text_.size() && is_digit(text_[at_])) {
      return number_from(text_.substr(at_++, 1));
    }
    if (at_ < text_.size() && is_letter(text_[at_])) return letter();
    return atom();
  }

  MathNumber function(std::string_view name) {
    const auto row = std::find_if(std::begin(kFunctions), std::end(kFunctions),
                                  [&](const NamedFunction& known) { return known.name == name; });
    if (row == std::end(kFunctions)) throw Unreadable("unknown command");
    if (name == "log" && take("_")) {
      const MathNumber base = argument();
      const auto natural = [](double x) { return std::log(x); };
      return apply(natural, factor()) / apply(natural, base);
    }
    if (take("^")) {  // \sin^2 x
      const MathNumber times = exponent();
      return power(apply(row->function, factor()), times);
    }
    return apply(row->function, factor());
  }

  // Functions, or letters that are multiplied; words are no formula.
  MathNumber word() {
    size_t end = at_;
    while (end < text_.size() && is_letter(text_[end])) ++end;
    const std::string_view name = text_.substr(at_, end - at_);
    if (name == "sqrt" || name == "pi" || name == "inf" || name == "infinity") {
      at_ = end;
      if (name == "sqrt") return root_of();
      return name == "pi" ? number_of(std::numbers::pi) : infinite_number();
    }
    for (const NamedFunction& known : kFunctions) {
      if (name == known.name) {
        at_ = end;
        return function(name);
      }
    }
    if (name.size() > 1 && (name.size() > 3 || ++words_ > 1)) throw Unreadable("words");
    return letter();
  }

  MathNumber letter() {
    std::string name(1, text_[at_++]);
    name += subscript();
    return name == "e" ? number_of(std::numbers::e) : number_of_letter(name);
  }

  // "_" and what follows it as a part of a name.
  std::string subscript() {
    if (at_ >= text_.size() || text_[at_] != '_') return "";
    ++at_;
    const size_t begin = at_;
    if (at_ < text_.size() && text_[at_] == '{') {
      const size_t end = after_bracket(text_, at_);
      if (end == std::string_view::npos) throw Unreadable("open bracket");
      at_ = end;
      return "_" + std::string(text_.substr(begin + 1, end - begin - 2));
    }
    if (at_ == text_.size()) throw Unreadable("_ without a name");
    ++at_;
    return "_" + std::string(text_.substr(begin, 1));
  }

  static std::string_view command_name(std::string_view next) {
    if (!next.starts_with("\\")) return {};
    size_t end = 1;
    while (end < next.size() && is_letter(next[end])) ++end;
    return next.substr(1, end - 1);
  }

  void skip_spaces() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }

  std::string_view rest() {
    skip_spaces();
    return text_.substr(at_);
  }

  bool take(std::string_view token) {
    if (!rest().starts_with(token)) return false;
    at_ += token.size();
    return true;
  }

  bool take_command(std::string_view name) {
    if (command_name(rest()) != name) return false;
    at_ += name.size() + 1;
    return true;
  }

  // Completions may nest without end.
  struct Nested {
    explicit Nested(int& depth_in) : depth(depth_in) {
      if (++depth > kMaxDepth) {
        --depth;
        throw Unreadable("nested too deeply");
      }
    }
    ~Nested() { --depth; }
    Nested(const Nested&) = delete;
    Nested& operator=(const Nested&) = delete;
    int& depth;
  };

  std::string_view text_;
  int sign_of_pm_;
  bool thousands_;
  size_t at_ = 0;
  int depth_ = 0;
  int words_ = 0;  // runs of letters
};

}  // namespace

MathNumber parse_formula(std::string_view text, int sign_of_pm, bool thousands) {
  return Parser(trimmed(text), sign_of_pm, thousands).run();
}

}  // namespace temper::trainer
