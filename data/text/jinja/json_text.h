#pragma once

#include <optional>
#include <string>

#include "data/text/jinja/value.h"

namespace temper::data::jinja {

struct JsonStyle {
  bool ascii = false;                 // escape what is not ASCII
  std::optional<std::string> indent;  // of one level; unset: everything on one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

/// Python's json.dumps. Throws for values that JSON does not have.
std::string to_json(const Value& value, const JsonStyle& style);

}  // namespace temper::data::jinja
