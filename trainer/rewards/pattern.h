#pragma once

#include <memory>
#include <string>
#include <string_view>

/// Regular expressions of users over completions: PCRE2, Unicode, `\n` ends a line. Text that is
/// not UTF-8 is searched all the same.
namespace temper::trainer {

class Pattern {
 public:
  enum class Dot { kNotNewline, kAll };

  /// Throws UserError beginning with `where` for an expression that is wrong.
  Pattern(const std::string& expression, const std::string& where, Dot dot = Dot::kNotNewline);

  enum class Found { kNo, kYes, kGaveUp };  // kGaveUp: too much backtracking

  Found somewhere_in(std::string_view text) const;
  Found whole(std::string_view text) const;
  /// The first and the last of the matches from left to right that are not empty; empty when none.
  std::string_view first_in(std::string_view text) const;
  std::string_view last_in(std::string_view text) const;

 private:
  std::shared_ptr<const void> code_;
};

}  // namespace temper::trainer
