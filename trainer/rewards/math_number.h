#pragma once

#include <array>
#include <optional>
#include <stdexcept>
#include <string_view>

/// The arithmetic behind answers: fractions stay exact while their parts fit 127 bits, all else is
/// doubles. A formula with letters is known by its values where the letters have a few fixed
/// values, so that `2(x + 1)` equals `2x + 2` without algebra.
namespace temper::trainer {

/// Text that is no answer of mathematics, or has no value (a division by zero).
struct Unreadable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

__extension__ typedef __int128 WideInt;

/// In lowest terms, bottom > 0.
struct Fraction {
  WideInt top = 0, bottom = 1;
  bool operator==(const Fraction&) const = default;
};

struct MathNumber {
  static constexpr int kPoints = 4;

  std::optional<Fraction> exact;
  std::array<double, kPoints> at{};  // equal where there are no letters
  bool letters = false;
  bool percent = false;  // written with %; the number is the one before it
  int decimals = 0;      // digits written after the point, if that is a rounded value (six digits)

  double value() const { return at[0]; }
};

MathNumber number_of(WideInt integer);
MathNumber number_of(double value);
/// Digits, perhaps with a point and a power of ten: "12", ".5", "1.5e-3".
MathNumber number_from(std::string_view digits);
/// A letter or name, which stands for an arbitrary number.
MathNumber number_of_letter(std::string_view name);
MathNumber infinite_number();

/// They throw Unreadable when the result has no value.
MathNumber operator-(const MathNumber& a);
MathNumber operator+(const MathNumber& a, const MathNumber& b);
MathNumber operator-(const MathNumber& a, const MathNumber& b);
MathNumber operator*(const MathNumber& a, const MathNumber& b);
MathNumber operator/(const MathNumber& a, const MathNumber& b);
MathNumber power(const MathNumber& base, const MathNumber& exponent);
MathNumber root(const MathNumber& x, const MathNumber& degree);
MathNumber factorial(const MathNumber& x);
MathNumber apply(double (*function)(double), const MathNumber& x);

/// Fractions exactly, except that a decimal of six digits and more equals what rounds to it
/// (0.333333 = 1/3); others within 1e-9. 50% equals 0.5 and 50.
bool same_number(const MathNumber& a, const MathNumber& b);
/// a = factor * b with one factor other than 0, above 0 when `positive`, wherever the letters are.
bool proportional(const MathNumber& a, const MathNumber& b, bool positive);

}  // namespace temper::trainer
