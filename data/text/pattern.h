#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "data/io/json.h"
#include "data/text/passage.h"
#include "data/text/regex.h"

/// What Split and Replace look for: {"String": "..."} literally, or {"Regex": "..."}.
namespace temper::data {

class Pattern {
 public:
  explicit Pattern(std::string literal) : pattern_(std::move(literal)) {}
  /// Throws UserError beginning with `where`.
  static Pattern parse(const Json& value, const std::string& where);

  /// All matches from left to right; an empty literal matches nothing.
  void find_all(std::string_view text, std::vector<Span>& matches) const;
  /// `text` with every match replaced.
  std::string replace_all(std::string_view text, std::string_view content) const;

 private:
  explicit Pattern(Regex regex) : pattern_(std::move(regex)) {}
  std::variant<std::string, Regex> pattern_;
};

}  // namespace temper::data
