#include "trainer/models/config_reader.h"

namespace temper::trainer {

using data::Json;

const Json* ConfigReader::find(const char* key) const {
  const auto it = object_.find(key);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

void ConfigReader::fail(const char* key, const std::string& problem) const {
  const Json* value = find(key);
  findings_.push_back(where_ + ": " + key + (value != nullptr ? " = " + value->dump() : "") +
                      ": " + problem);
}

int64_t ConfigReader::integer(const char* key, std::optional<int64_t> fallback) const {
  const Json* value = find(key);
  if (value == nullptr) {
    if (!fallback) fail(key, "is missing");
    return fallback.value_or(1);
  }
  if (!value->is_number_integer() || value->get<int64_t>() < 1 ||
      value->get<int64_t>() > (int64_t{1} << 40)) {
    fail(key, "must be a positive integer");
    return 1;
  }
  return value->get<int64_t>();
}

double ConfigReader::number(const char* key, std::optional<double> fallback, double at_least) const {
  const Json* value = find(key);
  if (value == nullptr) {
    if (!fallback) fail(key, "is missing");
    return fallback.value_or(1.0);
  }
  if (!value->is_number() || !(value->get<double>() >= at_least)) {
    fail(key, "must be a number of at least " + Json(at_least).dump());
    return 1.0;
  }
  return value->get<double>();
}

std::optional<double> ConfigReader::optional_number(const char* key) const {
  if (find(key) == nullptr) return std::nullopt;
  return number(key, std::nullopt);
}

bool ConfigReader::boolean(const char* key, bool fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  fail(key, "must be true or false");
  return fallback;
}

std::string ConfigReader::text(const char* key, const std::string& fallback) const {
  const Json* value = find(key);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->get<std::string>();
  fail(key, "must be a string");
  return fallback;
}

std::vector<double> ConfigReader::numbers(const char* key, int64_t size) const {
  const Json* value = find(key);
  std::vector<double> result;
  if (value != nullptr && value->is_array()) {
    for (const Json& item : *value) {
      if (item.is_number()) result.push_back(item.get<double>());
    }
  }
  if (static_cast<int64_t>(result.size()) != size || result.size() != value->size()) {
    fail(key, "must be a list of head_dim / 2 = " + std::to_string(size) + " numbers");
    result.assign(size, 1.0);
  }
  return result;
}

}  // namespace temper::trainer
