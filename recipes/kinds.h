#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "recipes/recipe.h"
#include "recipes/value.h"

/// A table of a recipe whose keys depend on one of them: [peft] on method, [objective] and
/// [[objective.rewards]] on kind.
namespace temper::recipes {

/// A key as one kind has it.
struct Field {
  std::string key;               // without the table
  Value initial{};               // unset: the reference's None
  std::vector<Value> allowed{};  // where a kind takes fewer values than the key; empty: all
};

struct Kind {
  std::string name;
  std::string meaning;  // one sentence, and the paper
  std::vector<Field> fields;

  /// nullptr: the key belongs to other kinds. `key` with or without the table.
  const Field* field(std::string_view key) const;
};

/// Blank-separated names of fields whose default is None, then those with a default.
std::vector<Field> make_fields(const char* without_default, std::vector<Field> with_default);

const Kind* find_kind(const std::vector<Kind>& kinds, std::string_view name);
std::vector<std::string> names_of(const std::vector<Kind>& kinds);

/// The kinds that have the key, in the order of the table.
std::vector<std::string> kinds_with(const std::vector<Kind>& kinds, std::string_view key);

}  // namespace temper::recipes
