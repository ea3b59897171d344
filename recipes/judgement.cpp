#include "recipes/judgement.h"

#include <regex>

#include "recipes/diagnostic.h"
#include "recipes/schema.h"

namespace temper::recipes {

void Judgement::require(bool holds, const std::vector<std::string>& keys,
                        const std::string& problem) {
  if (holds || !findings.clean(keys)) return;
  const Key* key = find_key(keys.front());
  const bool has_value = key && key->get(recipe) != Value{""};
  findings.add(keys, keys.front() + (has_value ? " = " + to_toml(key->get(recipe)) : ""), problem);
}

void Judgement::require_pattern(const std::string& pattern, const std::string& key) {
  try {
    std::regex compiled(pattern);
  } catch (const std::regex_error&) {
    require(false, {key}, in_quotes(pattern) + " is not a regular expression (ECMAScript)");
  }
}

std::string no_effect(const std::string& with) { return "has no effect with " + with; }

std::string listed(const std::vector<std::string>& texts, const std::string& before_last) {
  if (texts.size() < 2) return join(texts);
  return join({texts.begin(), texts.end() - 1}) + before_last + texts.back();
}

std::string one_of(const std::vector<Value>& values) {
  std::vector<std::string> texts;
  for (const Value& value : values) texts.push_back(to_toml(value));
  return listed(texts, " or ");
}

}  // namespace temper::recipes
