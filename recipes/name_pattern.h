#pragma once

#include <memory>
#include <optional>
#include <string>

namespace temper::recipes {

/// A regular expression over module names: Python's `re`, which is what PEFT's configs hold, run by
/// PCRE2 (the same syntax as far as module names go).
class NamePattern {
 public:
  /// Throws UserError beginning with `where` ("peft.target_modules") for a pattern that is wrong.
  NamePattern(const std::string& pattern, const std::string& where);

  /// What is wrong with `pattern` ("missing closing parenthesis at character 2"), or "".
  static std::string problem(const std::string& pattern);

  /// re.fullmatch
  bool matches(const std::string& name) const;
  /// re.match at the beginning of `name`: what the group (?P<idx>...) of the pattern took.
  std::optional<std::string> idx(const std::string& name) const;

 private:
  std::shared_ptr<const void> code_;
};

}  // namespace temper::recipes
