#include "recipes/resolve.h"

#include <algorithm>
#include <utility>

#include "recipes/objective_kinds.h"
#include "recipes/peft_methods.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

constexpr double kAdapterLearningRate = 2e-4;

std::string written(const std::string& name, const Value& value) {
  return name + " = " + to_toml(value) + "\n";
}

// Without the keys that are unset: they belong to other kinds of entries.
template <class Entry>
std::string list_to_toml(const std::string& list, const std::vector<Entry>& entries) {
  std::string text;
  for (const Entry& entry : entries) {
    text += "\n[[" + list + "]]\n";
    for (const KeyOf<Entry>& key : keys_of<Entry>()) {
      const Value value = key.get(entry);
      if (value != Value{}) text += written(key.name, value);
    }
  }
  return text;
}

// Of [peft] and [objective] what the method or kind has and what is set.
bool is_written(const Key& key, const Recipe& recipe) {
  if (is_of_every_method(key.name) || key.name == "objective.kind") return true;
  const Kind* kind = find_objective_kind(recipe.objective.kind);
  const PeftMethod* method = find_peft_method(recipe.peft.method);
  const bool has = key.name.starts_with("peft.") ? method && method->field(key.name)
                                                 : kind && kind->field(key.name);
  return has && key.get(recipe) != Value{};
}

template <class Entry>
void compare_lists(const std::string& list, const std::vector<Entry>& before,
                   const std::vector<Entry>& after, std::vector<Difference>& found) {
  for (size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
    for (const KeyOf<Entry>& key : keys_of<Entry>()) {
      const std::string name = list + "." + std::to_string(i) + "." + key.name;
      const std::string old_value = i < before.size() ? to_toml(key.get(before[i])) : "";
      const std::string new_value = i < after.size() ? to_toml(key.get(after[i])) : "";
      if (old_value != new_value) {
        found.push_back({name, old_value, new_value, may_differ_on_resume(name)});
      }
    }
  }
}

}  // namespace

Recipe resolve(Recipe recipe) {
  const bool adapter = !recipe.peft.method.empty() || !recipe.model.adapter.empty();
  const ObjectiveKind* kind = find_objective_kind(recipe.objective.kind);
  if (!recipe.optimizer.lr && (adapter || kind)) {
    recipe.optimizer.lr = adapter ? kAdapterLearningRate : kind->learning_rate;
  }
  fill_in_peft(recipe);
  fill_in_objective(recipe);
  return recipe;
}

std::string to_toml(const Recipe& recipe) {
  std::string text = "# Every key of this recipe, defaults written out.\n";
  for (const std::string& table : table_names()) {
    if (table == "peft" && recipe.peft.method.empty()) continue;
    text += "\n[" + table + "]\n";
    for (const Key& key : keys()) {
      if (!key.name.starts_with(table + ".")) continue;
      // Both at once would be refused.
      if (key.name == "train.epochs" && recipe.train.steps) continue;
      if ((table == "peft" || table == "objective") && !is_written(key, recipe)) continue;
      text += written(key.name.substr(table.size() + 1), key.get(recipe));
    }
    for (const std::string& list : list_names()) {
      if (!list.starts_with(table + ".")) continue;
      use_list(recipe, list, [&](const auto& entries) { text += list_to_toml(list, entries); });
    }
  }
  return text;
}

std::vector<Difference> differences(const Recipe& before, const Recipe& after) {
  std::vector<Difference> found;
  for (const Key& key : keys()) {
    const Value old_value = key.get(before);
    const Value new_value = key.get(after);
    if (old_value != new_value) {
      found.push_back(
          {key.name, to_toml(old_value), to_toml(new_value), may_differ_on_resume(key.name)});
    }
  }
  const auto compare = [&](const std::string& list, const auto& old_list, const auto& new_list) {
    compare_lists(list, old_list, new_list, found);
  };
  compare("data.train", before.data.train, after.data.train);
  compare("data.eval", before.data.eval, after.data.eval);
  compare("objective.rewards", before.objective.rewards, after.objective.rewards);
  return found;
}

}  // namespace temper::recipes
