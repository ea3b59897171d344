#pragma once

#include <string_view>

#include "data/text/jinja/value.h"

/// The methods of Python's str that templates call.
namespace temper::data::jinja {

struct StringMethod {
  std::string_view name;
  Value (*call)(std::string_view name, const std::string& text, const Arguments& arguments);
};

/// Null for a name that is none.
const StringMethod* find_string_method(std::string_view name);
/// Strings that come from a safe string stay safe.
Value call_string_method(const StringMethod& method, const Value& text, const Arguments& arguments);

}  // namespace temper::data::jinja
