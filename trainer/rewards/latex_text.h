#pragma once

#include <string>
#include <string_view>

namespace temper::trainer {

/// An answer with one spelling for what LaTeX, Unicode and plain text spell in several ways:
/// without $, \left, thin spaces and degrees, with \frac for \dfrac, * for \times, words for
/// \text{words}, commas for "and" and "or".
struct PlainLatex {
  std::string text;
  bool had_words = false;  // some of it was in \text{} or a relative
};
PlainLatex plain_latex(std::string_view latex);

/// The text before a unit that ends it ("18 dollars", "5 m/s^2", "3 cm^2"), else the text itself.
std::string_view without_unit(std::string_view plain);

/// The position after the bracket that closes the one at `open`; npos when none does. Escaped
/// braces (\{) are brackets as well; `(` may be closed by `]`, as in intervals.
size_t after_bracket(std::string_view text, size_t open);

std::string_view trimmed(std::string_view text);

}  // namespace temper::trainer
