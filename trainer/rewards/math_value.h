#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "trainer/rewards/math_number.h"

/// What an answer says, read from LaTeX or plain text: `\frac{1}{2}`, `$1,000`, `50\%`, `(1,
/// \infty)`,
/// `\{1, 2\}`, `x = 3`, `2\sqrt{3} + 1`, `\text{Tuesday}`.
///
///     for (const MathValue& gold : read_math("1,000", Words::kInText)) ...
///
/// Math-Verify, which TRL uses, is the guide; a computer algebra is not in here, so formulas are
/// compared by their values (math_number.h) and integrals, for example, cannot be read.
namespace temper::trainer {

struct MathValue {
  enum class Kind {
    kNumber,    // and formulas
    kText,      // in lower case, without spaces
    kList,      // 1, 2: any order
    kSet,       // \{1, 2\}: any order
    kTuple,     // (1, 2), [1, 2): tuples and intervals, with their brackets
    kUnion,     // of intervals, any order
    kMatrix,    // of kTuple rows
    kRelation,  // number is left - right
  };
  Kind kind = Kind::kNumber;
  MathNumber number;
  std::string text;  // kText; kTuple: the two brackets; kRelation: = < <= !=
  std::vector<MathValue> parts;
};

/// Words alone are an answer where LaTeX says so (\text{Tuesday}), or anywhere.
enum class Words { kInText, kAnywhere };

/// The readings of a text: as it stands, and without a unit (`18 dollars`). None: not an answer.
std::vector<MathValue> read_math(std::string_view text, Words words);

bool same_value(const MathValue& a, const MathValue& b);

}  // namespace temper::trainer
