#include "recipes/kinds.h"

#include <algorithm>
#include <sstream>

namespace temper::recipes {

const Field* Kind::field(std::string_view key) const {
  const auto found = std::find_if(fields.begin(), fields.end(), [&](const Field& row) {
    return key == row.key || key.ends_with("." + row.key);
  });
  return found == fields.end() ? nullptr : &*found;
}

std::vector<Field> make_fields(const char* without_default, std::vector<Field> with_default) {
  std::vector<Field> all;
  std::istringstream names(without_default);
  for (std::string name; names >> name;) all.push_back({name});
  all.insert(all.end(), with_default.begin(), with_default.end());
  return all;
}

const Kind* find_kind(const std::vector<Kind>& kinds, std::string_view name) {
  const auto found =
      std::find_if(kinds.begin(), kinds.end(), [&](const Kind& kind) { return kind.name == name; });
  return found == kinds.end() ? nullptr : &*found;
}

std::vector<std::string> names_of(const std::vector<Kind>& kinds) {
  std::vector<std::string> names;
  for (const Kind& kind : kinds) names.push_back(kind.name);
  return names;
}

std::vector<std::string> kinds_with(const std::vector<Kind>& kinds, std::string_view key) {
  std::vector<std::string> names;
  for (const Kind& kind : kinds) {
    if (kind.field(key)) names.push_back(kind.name);
  }
  return names;
}

}  // namespace temper::recipes
