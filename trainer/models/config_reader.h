#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "data/io/json.h"

namespace temper::trainer {

/// Reads keys of one JSON object and collects what is wrong with them, a line each. A key that is
/// null counts as absent.
class ConfigReader {
 public:
  /// `where`: what a finding begins with. Keeps references to the others.
  ConfigReader(std::string where, const data::Json& object, std::vector<std::string>& findings)
      : where_(std::move(where)), object_(object), findings_(findings) {}

  const data::Json* find(const char* key) const;
  void fail(const char* key, const std::string& problem) const;

  /// Each gives `fallback` where the key is absent (none: a finding), and something harmless where
  /// it is wrong.
  int64_t integer(const char* key, std::optional<int64_t> fallback) const;  // at least 1
  double number(const char* key, std::optional<double> fallback, double at_least = 0.0) const;
  std::optional<double> optional_number(const char* key) const;
  bool boolean(const char* key, bool fallback) const;
  std::string text(const char* key, const std::string& fallback) const;
  std::vector<double> numbers(const char* key, int64_t size) const;

  const std::string& where() const { return where_; }
  std::vector<std::string>& findings() const { return findings_; }

 private:
  std::string where_;
  const data::Json& object_;
  std::vector<std::string>& findings_;
};

}  // namespace temper::trainer
