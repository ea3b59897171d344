#include "data/text/component.h"

#include <algorithm>

#include "data/text/unicode.h"
#include "recipes/diagnostic.h"

namespace temper::data {

void Component::fail(const std::string& what) const { throw UserError(where + ": " + what); }

const Json& Component::field(const char* name) const {
  if (!value.is_object()) fail("must be an object");
  const auto found = value.find(name);
  if (found == value.end()) fail("lacks '" + std::string(name) + "'");
  return *found;
}

std::string Component::type() const { return text("type"); }

bool Component::flag(const char* name) const {
  const Json& found = field(name);
  if (!found.is_boolean()) fail("'" + std::string(name) + "' must be true or false");
  return found.get<bool>();
}

bool Component::flag(const char* name, bool otherwise) const {
  if (!value.is_object()) fail("must be an object");
  return value.contains(name) ? flag(name) : otherwise;
}

int64_t Component::integer(const char* name) const {
  const Json& found = field(name);
  if (!found.is_number_integer()) fail("'" + std::string(name) + "' must be an integer");
  return found.get<int64_t>();
}

std::string Component::text(const char* name) const {
  const Json& found = field(name);
  if (!found.is_string()) fail("'" + std::string(name) + "' must be a string");
  return found.get<std::string>();
}

std::string Component::text_or_empty(const char* name) const {
  if (!value.is_object()) fail("must be an object");
  const auto found = value.find(name);
  return found == value.end() || found->is_null() ? "" : text(name);
}

uint32_t Component::character(const char* name) const {
  const std::string found = text(name);
  if (found.empty() || utf8_size(found[0]) != found.size()) {
    fail("'" + std::string(name) + "' must be one character");
  }
  return decode_utf8(found, 0).value;
}

size_t Component::choice(const char* name, std::initializer_list<const char*> values) const {
  const std::string found = text(name);
  const auto place = std::find(values.begin(), values.end(), found);
  if (place != values.end()) return static_cast<size_t>(place - values.begin());
  fail(std::string(name) + " '" + found + "' is not supported; there are " +
       join(std::vector<std::string>(values.begin(), values.end())));
}

std::vector<Component> Component::children(const char* name) const {
  const Json& found = field(name);
  if (!found.is_array()) fail("'" + std::string(name) + "' must be an array");
  std::vector<Component> result;
  for (size_t i = 0; i < found.size(); ++i) {
    result.push_back({found[i], where + "." + name + "[" + std::to_string(i) + "]"});
  }
  return result;
}

void fail_unsupported(const Component& component, std::vector<std::string> known) {
  component.fail("type '" + component.type() + "' is not supported; there are " + join(known));
}

}  // namespace temper::data
