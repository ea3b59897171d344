#pragma once

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "recipes/diagnostic.h"

namespace temper::parallel {

/// "600 s (parallel.timeout)"
inline std::string timeout_text(double seconds) {
  char number[32];
  std::snprintf(number, sizeof(number), "%g", seconds);
  return std::string(number) + " s (parallel.timeout)";
}

/// A collective has not finished within parallel.timeout; what() names rank, host, collective and
/// who did not answer.
class CollectiveTimeout : public RunError {
 public:
  CollectiveTimeout(const std::string& message, std::vector<std::string> recent)
      : RunError(message), recent_(std::move(recent)) {}
  /// The last operations of this rank, the oldest first, and how far each has come.
  const std::vector<std::string>& recent() const { return recent_; }

 private:
  std::vector<std::string> recent_;
};

}  // namespace temper::parallel
