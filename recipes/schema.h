#pragma once

#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "recipes/recipe.h"
#include "recipes/value.h"

/// The registry of keys: one row a key with its member, range, unit, what of it works in this
/// version, and one sentence. Reading, messages, the resolved recipe and docs/recipe.md all come
/// from these rows; defaults come from Recipe{}.
///
/// To add a key: a member in recipe.h and a row in schema.cpp (of [peft]: in peft_rows.cpp, and its
/// methods in peft_methods.cpp; of [objective]: in objective_rows.cpp and objective_kinds.cpp).
namespace temper::recipes {

enum class Type {
  kBool,
  kInt,
  kNumber,
  kString,
  kChoice,
  kBoolOrChoice,
  kStrings,
  kStringOrStrings,
  kNumbers,
  kInts,
  kIntOrInts,
  kMap,
  kIntMap,
};

struct Range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;  // open: the bound itself is not allowed
  bool high_open = false;

  bool contains(double value) const;
  /// "above 0", "at least 1", "from 0 to 1"; "" without bounds.
  std::string text() const;
};

struct KeyInfo {
  std::string name;  // dotted ("optimizer.lr"); for the keys of a list's entries, the last part
  Type type;
  bool optional;  // "auto" is allowed and means unset
  // Of kChoice and kBoolOrChoice, and of the elements of kStrings; the end "<k>" of a choice stands
  // for a whole number.
  std::vector<std::string> choices;
  Range range;  // of numbers, and of the elements of lists and maps of numbers
  std::string unit;
  bool not_empty;            // strings and lists
  std::vector<Value> works;  // what this version can do, besides unset and ""; empty: all
  std::string meaning;       // one sentence
};

template <class Owner>
struct KeyOf : KeyInfo {
  Value (*get)(const Owner&);
  /// The value must have the key's type.
  void (*set)(Owner&, const Value&);
};
using Key = KeyOf<Recipe>;
using SourceKey = KeyOf<DataSource>;
using RewardKey = KeyOf<Reward>;

/// In the order of the recipe's tables.
const std::vector<Key>& keys();
const std::vector<SourceKey>& source_keys();
const std::vector<RewardKey>& reward_keys();
const Key* find_key(std::string_view name);
const SourceKey* find_source_key(std::string_view name);
const RewardKey* find_reward_key(std::string_view name);

/// "run", "model", ... in order.
const std::vector<std::string>& table_names();

/// A key or table that is known but not in this version, or not needed, and the line that says what
/// exists instead.
struct Later {
  std::string name;
  std::string line;
};
const Later* find_later(std::string_view name);

/// What a value must be: "a whole number, at least 1", "one of \"none\", \"full\"".
std::string requirement(const KeyInfo& key);

/// Why a value of the right type is not allowed ("must be above 0"), or "".
std::string problem_with(const KeyInfo& key, const Value& value);

/// Why an allowed value cannot be used yet ("not in this version, which has only ..."), or "".
std::string not_yet(const KeyInfo& key, const Value& value);

/// Whether a resumed run may have another value of this key than the run had before.
bool may_differ_on_resume(std::string_view key);

// ---- lists of tables ---------------------------------------------------------------------------

/// "data.train", "data.eval", "objective.rewards".
const std::vector<std::string>& list_names();
bool is_list(std::string_view name);

/// The keys of a list's entries, by what they are entries of.
template <class Entry>
const std::vector<KeyOf<Entry>>& keys_of();
template <>
inline const std::vector<SourceKey>& keys_of<DataSource>() {
  return source_keys();
}
template <>
inline const std::vector<RewardKey>& keys_of<Reward>() {
  return reward_keys();
}

/// Calls `use` with the recipe's list of that name: a vector of DataSource or Reward.
template <class AnyRecipe, class Use>
void use_list(AnyRecipe& recipe, std::string_view name, Use use) {
  if (name == "data.train") {
    use(recipe.data.train);
  } else if (name == "data.eval") {
    use(recipe.data.eval);
  } else if (name == "objective.rewards") {
    use(recipe.objective.rewards);
  }
}

}  // namespace temper::recipes
