#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/text/passage.h"

/// The regular expressions of tokenizer.json, which are Oniguruma's with Unicode 16, run by PCRE2
/// with Unicode 14.
///
/// Matching happens on a copy in which newer characters are replaced by older ones of the same
/// category and size (made only where the text has any); constructs that the two engines read
/// differently are translated or refused.
namespace temper::data {

class Regex {
 public:
  /// Throws UserError beginning with `where` for a pattern that is wrong or not supported.
  Regex(const std::string& pattern, const std::string& where);

  /// All matches from left to right. An empty match directly after another match is not one.
  void find_all(std::string_view text, std::vector<Span>& matches) const;

 private:
  std::shared_ptr<const void> code_;
};

}  // namespace temper::data
