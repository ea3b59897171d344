#include "recipes/resolve.h"

#include <algorithm>
#include <utility>

#include "recipes/peft_methods.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

// TRL's learning rate for the objective.
constexpr double kSftLearningRate = 2e-5;
constexpr double kAdapterLearningRate = 2e-4;

std::string written(const std::string& name, const Value& value) {
  return name + " = " + to_toml(value) + "\n";
}

std::string sources_to_toml(const std::string& list, const std::vector<DataSource>& sources) {
  std::string text;
  for (const DataSource& source : sources) {
    text += "\n[[" + list + "]]\n";
    for (const SourceKey& key : source_keys()) text += written(key.name, key.get(source));
  }
  return text;
}

// Of [peft] what the method has and what is set.
bool is_written(const Key& key, const Recipe& recipe) {
  if (is_of_every_method(key.name)) return true;
  const PeftMethod* method = find_peft_method(recipe.peft.method);
  return method && method->field(key.name) && key.get(recipe) != Value{};
}

void compare_sources(const std::string& list, const std::vector<DataSource>& before,
                     const std::vector<DataSource>& after, std::vector<Difference>& found) {
  for (size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
    for (const SourceKey& key : source_keys()) {
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
  if (!recipe.optimizer.lr) recipe.optimizer.lr = adapter ? kAdapterLearningRate : kSftLearningRate;
  fill_in_peft(recipe);
  if (!recipe.objective.loss_type) recipe.objective.loss_type = "nll";
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
      if (table == "peft" && !is_written(key, recipe)) continue;
      text += written(key.name.substr(table.size() + 1), key.get(recipe));
    }
    if (table == "data") {
      for (const char* list : {"data.train", "data.eval"})
        text += sources_to_toml(list, *sources_of(recipe, list));
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
  for (const char* list : {"data.train", "data.eval"}) {
    compare_sources(list, *sources_of(before, list), *sources_of(after, list), found);
  }
  return found;
}

}  // namespace temper::recipes
