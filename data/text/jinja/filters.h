#pragma once

#include <span>
#include <string_view>

#include "data/text/jinja/value.h"

/// Filters: `value | name(arguments)`.
namespace temper::data::jinja {

struct Filter {
  std::string_view name;
  Value (*apply)(const Value& input, const Arguments& arguments);
};

/// Null for a name that is none.
const Filter* find_filter(std::string_view name);

/// The two halves of the table.
std::span<const Filter> text_filters();
std::span<const Filter> sequence_filters();

/// `a.b.0` in map(attribute=...) and its kin; an integer is an index. Absent ones become `fallback`
/// where that is given.
Value get_path(const Value& item, const Value& path, const Value* fallback = nullptr);

}  // namespace temper::data::jinja
