#pragma once

#include <string_view>

#include "data/text/jinja/value.h"

/// Tests: `value is name(arguments)`.
namespace temper::data::jinja {

struct Test {
  std::string_view name;
  bool (*holds)(const Value& value, const Arguments& arguments);
};

/// Null for a name that is none.
const Test* find_test(std::string_view name);

}  // namespace temper::data::jinja
