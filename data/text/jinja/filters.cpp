#include "data/text/jinja/filters.h"

#include <algorithm>

#include "data/text/jinja/operators.h"

namespace temper::data::jinja {

const Filter* find_filter(std::string_view name) {
  for (std::span<const Filter> filters : {text_filters(), sequence_filters()}) {
    const auto found = std::find_if(filters.begin(), filters.end(),
                                    [&](const Filter& filter) { return filter.name == name; });
    if (found != filters.end()) return &*found;
  }
  return nullptr;
}

Value get_path(const Value& item, const Value& path, const Value* fallback) {
  Value value = item;
  const auto step = [&](const Value& key) {
    value = get_item(value, key);
    if (value.is_undefined() && fallback) value = *fallback;
  };
  if (!path.is_string()) {
    step(path);
    return value;
  }
  std::string_view rest = path.text();
  for (;;) {
    const std::string_view part = rest.substr(0, rest.find('.'));
    const bool index =
        !part.empty() && part.size() < 18 && part.find_first_not_of("0123456789") == part.npos;
    step(index ? Value(int64_t(std::stoll(std::string(part)))) : Value(part));
    if (part.size() == rest.size()) return value;
    rest.remove_prefix(part.size() + 1);
  }
}

}  // namespace temper::data::jinja
