#pragma once

#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// What went wrong, for whom.
///
/// UserError: something that came from outside (recipe, files, data, arguments) is wrong. Ends in
/// exit code 2, one line a finding. Every line says what, where and how to mend it:
///     dpo.toml:14: objective.beta = -0.1: must be above 0 (typical: 0.05 to 0.5)
/// RunError: the input was right but the run could not go on (disk full, NaN loss, lost rank). Ends
/// in exit code 1. TEMPER_CHECK: a promise of the code itself is broken; never the user's fault.
namespace temper {

class UserError : public std::runtime_error {
 public:
  explicit UserError(std::string line);
  /// All findings at once; `lines` must not be empty.
  explicit UserError(std::vector<std::string> lines);
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::vector<std::string> lines_;
};

class RunError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The candidate closest to `found` in edit distance, or "" when none is near enough to be a
/// misspelling.
std::string nearest_name(std::string_view found, const std::vector<std::string>& candidates);

/// "a, b, c" (for lists of allowed values in messages).
std::string join(const std::vector<std::string>& parts, std::string_view separator = ", ");

[[noreturn]] void check_failed(const char* condition, const char* file, int line,
                               const std::string& message);

}  // namespace temper

#define TEMPER_CHECK(condition, message) \
  ((condition) ? void(0) : ::temper::check_failed(#condition, __FILE__, __LINE__, (message)))
