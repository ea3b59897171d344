#include "trainer/rewards/math_number.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <string>

namespace temper::trainer {
namespace {

constexpr double kClose = 1e-9;

bool close(double a, double b) {
  if (a == b) return true;
  return std::abs(a - b) <= kClose * std::max(std::abs(a), std::abs(b));
}

WideInt absolute(WideInt x) { return x < 0 ? -x : x; }

WideInt greatest_common_divisor(WideInt a, WideInt b) {
  while (b != 0) {
    const WideInt rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// In lowest terms; nothing when bottom is 0.
std::optional<Fraction> fraction(WideInt top, WideInt bottom) {
  if (bottom == 0) return std::nullopt;
  const WideInt divisor = greatest_common_divisor(absolute(top), absolute(bottom));
  const WideInt sign = bottom < 0 ? -1 : 1;
  return Fraction{sign * top / divisor, sign * bottom / divisor};
}

// Nothing when a part does not fit.
std::optional<Fraction> sum(const Fraction& a, const Fraction& b) {
  WideInt left, right, top, bottom;
  if (__builtin_mul_overflow(a.top, b.bottom, &left) ||
      __builtin_mul_overflow(b.top, a.bottom, &right) ||
      __builtin_add_overflow(left, right, &top) ||
      __builtin_mul_overflow(a.bottom, b.bottom, &bottom)) {
    return std::nullopt;
  }
  return fraction(top, bottom);
}

std::optional<Fraction> product(const Fraction& a, const Fraction& b) {
  WideInt top, bottom;
  if (__builtin_mul_overflow(a.top, b.top, &top) ||
      __builtin_mul_overflow(a.bottom, b.bottom, &bottom)) {
    return std::nullopt;
  }
  return fraction(top, bottom);
}

void set_exact(MathNumber& number, std::optional<Fraction> exact) {
  number.exact = exact;
  if (exact) number.at.fill(static_cast<double>(exact->top) / static_cast<double>(exact->bottom));
}

// A formula may lack a value somewhere (a root of what is negative there), a number may not.
void check_value(const MathNumber& number) {
  const bool any = std::any_of(number.at.begin(), number.at.end(),
                               [](double value) { return std::isfinite(value); });
  if (!any || (!number.letters && !std::isfinite(number.value()))) throw Unreadable("no value");
}

void check_finite(const MathNumber& a) {
  if (!a.letters && std::isinf(a.value())) throw Unreadable("infinity in a formula");
}

template <class Operation>
MathNumber combined(const MathNumber& a, const MathNumber& b, std::optional<Fraction> exact,
                    Operation operation) {
  check_finite(a);
  check_finite(b);
  MathNumber result;
  result.letters = a.letters || b.letters;
  for (int i = 0; i < MathNumber::kPoints; ++i) result.at[i] = operation(a.at[i], b.at[i]);
  if (exact) set_exact(result, exact);
  check_value(result);
  return result;
}

bool rounds_to(const MathNumber& x, const MathNumber& decimal) {
  if (decimal.decimals == 0) return false;
  const double half = 0.5 * std::pow(10.0, -decimal.decimals);
  return std::abs(x.value() - decimal.value()) <= half * (1 + 1e-6);
}

bool same_plain(const MathNumber& a, const MathNumber& b) {
  if (a.exact && b.exact && *a.exact == *b.exact) return true;
  if (a.letters || b.letters) {
    int compared = 0;
    for (int i = 0; i < MathNumber::kPoints; ++i) {
      const bool has_a = std::isfinite(a.at[i]), has_b = std::isfinite(b.at[i]);
      if (has_a != has_b || (has_a && !close(a.at[i], b.at[i]))) return false;
      compared += has_a ? 1 : 0;
    }
    return compared >= 2;
  }
  if (std::isinf(a.value()) || std::isinf(b.value())) return a.value() == b.value();
  if (rounds_to(a, b) || rounds_to(b, a)) return true;
  return !(a.exact && b.exact) && close(a.value(), b.value());
}

}  // namespace

MathNumber number_of(WideInt integer) {
  MathNumber number;
  set_exact(number, Fraction{integer, 1});
  return number;
}

MathNumber number_of(double value) {
  MathNumber number;
  number.at.fill(value);
  check_value(number);
  return number;
}

MathNumber number_from(std::string_view digits) {
  std::string plain(digits);
  double value = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), value);
  if (error != std::errc() || end != plain.data() + plain.size()) throw Unreadable("no number");
  MathNumber number = number_of(value);

  int exponent = 0;
  if (const size_t e = plain.find_first_of("eE"); e != std::string::npos) {
    exponent = std::clamp(std::atoi(plain.c_str() + e + 1), -400, 400);
    plain.resize(e);
  }
  if (const size_t point = plain.find('.'); point != std::string::npos) {
    const size_t after = plain.size() - point - 1;
    plain.erase(point, 1);
    const size_t leading = std::min(plain.find_first_not_of('0'), plain.size());
    if (exponent == 0 && plain.size() - std::max(point, leading) >= 6) {
      number.decimals = static_cast<int>(after);
    }
    exponent -= static_cast<int>(after);
  }
  std::optional<Fraction> exact = Fraction{};
  for (const char digit : plain) {
    exact = product(*exact, {10, 1});
    if (exact) exact = sum(*exact, {digit - '0', 1});
    if (!exact) return number;
  }
  for (; exponent > 0 && exact; --exponent) exact = product(*exact, {10, 1});
  for (; exponent < 0 && exact; ++exponent) exact = product(*exact, {1, 10});
  if (exact) set_exact(number, exact);
  return number;
}

MathNumber number_of_letter(std::string_view name) {
  uint64_t state = 14695981039346656037ull;  // FNV-1a, then splitmix64 for each point
  for (const char c : name) state = (state ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  MathNumber number;
  number.letters = true;
  for (double& value : number.at) {
    state += 0x9E3779B97F4A7C15ull;
    uint64_t mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBull;
    value = 0.5 + 2.0 * static_cast<double>((mixed ^ (mixed >> 31)) >> 11) * 0x1p-53;
  }
  return number;
}

MathNumber infinite_number() {
  MathNumber number;
  number.at.fill(INFINITY);
  return number;
}

MathNumber operator-(const MathNumber& a) {
  MathNumber result = a;
  for (double& value : result.at) value = -value;
  if (result.exact) result.exact->top = -result.exact->top;
  return result;
}

MathNumber operator+(const MathNumber& a, const MathNumber& b) {
  return combined(a, b, a.exact && b.exact ? sum(*a.exact, *b.exact) : std::nullopt,
                  [](double x, double y) { return x + y; });
}

MathNumber operator-(const MathNumber& a, const MathNumber& b) { return a + -b; }

MathNumber operator*(const MathNumber& a, const MathNumber& b) {
  return combined(a, b, a.exact && b.exact ? product(*a.exact, *b.exact) : std::nullopt,
                  [](double x, double y) { return x * y; });
}

MathNumber operator/(const MathNumber& a, const MathNumber& b) {
  std::optional<Fraction> exact;
  if (a.exact && b.exact) {
    if (b.exact->top == 0) throw Unreadable("division by zero");
    exact = product(*a.exact, *fraction(b.exact->bottom, b.exact->top));
  }
  return combined(a, b, exact, [](double x, double y) { return x / y; });
}

MathNumber power(const MathNumber& base, const MathNumber& exponent) {
  std::optional<Fraction> exact;
  if (base.exact && exponent.exact && exponent.exact->bottom == 1 &&
      absolute(exponent.exact->top) <= 400) {
    const auto times = static_cast<int>(exponent.exact->top);
    if (times < 0 && base.exact->top == 0) throw Unreadable("division by zero");
    const std::optional<Fraction> factor =
        times < 0 ? fraction(base.exact->bottom, base.exact->top) : base.exact;
    exact = Fraction{1, 1};
    for (int i = 0; i < std::abs(times) && exact; ++i) exact = product(*exact, *factor);
  }
  return combined(base, exponent, exact, [](double x, double y) { return std::pow(x, y); });
}

MathNumber root(const MathNumber& x, const MathNumber& degree) {
  return combined(x, degree, std::nullopt, [](double value, double n) {
    const bool odd = std::abs(std::remainder(n, 2.0)) == 1.0;
    return odd && value < 0 ? -std::pow(-value, 1 / n) : std::pow(value, 1 / n);
  });
}

MathNumber factorial(const MathNumber& x) {
  if (!x.exact || x.exact->bottom != 1 || x.exact->top < 0 || x.exact->top > 170) {
    throw Unreadable("factorial of no small integer");
  }
  MathNumber result = number_of(WideInt{1});
  for (WideInt factor = 2; factor <= x.exact->top; ++factor) result = result * number_of(factor);
  return result;
}

MathNumber apply(double (*function)(double), const MathNumber& x) {
  return combined(x, x, std::nullopt, [function](double value, double) { return function(value); });
}

bool same_number(const MathNumber& a, const MathNumber& b) {
  if (same_plain(a, b)) return true;
  if (a.percent == b.percent) return false;
  const MathNumber hundred = number_of(WideInt{100});
  return a.percent ? same_plain(a / hundred, b) : same_plain(a, b / hundred);
}

bool proportional(const MathNumber& a, const MathNumber& b, bool positive) {
  double factor = 0;
  int compared = 0;
  for (int i = 0; i < MathNumber::kPoints; ++i) {
    if (!std::isfinite(a.at[i]) || !std::isfinite(b.at[i])) continue;
    const double here = a.at[i] / b.at[i];
    if (!std::isfinite(here) || here == 0 || (positive && here < 0)) return false;
    if (compared++ > 0 && !close(here, factor)) return false;
    factor = here;
  }
  return compared >= 2;
}

}  // namespace temper::trainer
