#include "recipes/reference.h"

#include <algorithm>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

constexpr const char* kIntroduction = R"(# The recipe

This page is made from the rows of `recipes/schema.cpp`; after a change there:

    ninja -C build temper_recipe_reference && build/bin/temper_recipe_reference > docs/recipe.md

A recipe is a TOML file in which only what differs from the defaults is written. Unknown keys are errors, and so is
a value that this version cannot do or that would have no effect; all findings of a recipe are reported at once.

- `extends = "base.toml"`, or a list, takes the values of other recipes first. These paths are relative to the
  directory of the recipe that says it; all other relative paths are relative to the working directory.
- `key=value` on the command line comes last: `optimizer.lr=1e-4`, `model.path=models/llama`, `'optimizer.betas=[0.9, 0.95]'`.
  A string needs no quotes; lists and tables are TOML. `data.train.0.path=rows.jsonl` changes an entry of a list, and an index
  one past the end appends one.
- Where a later layer gives `train.steps` and an earlier one `train.epochs` (or the other way round), the later counts.
- `"auto"` as a number leaves it to Temper.
- The resolved recipe, with every key written out, is saved as `recipe.toml` in the run directory and is a recipe itself.
- A run may be resumed with other values of the keys marked *; any other difference is refused.
)";

// A cell of a table: no bars, no line breaks.
std::string cell(std::string text) {
  for (size_t bar = text.find('|'); bar != std::string::npos; bar = text.find('|', bar + 2))
    text.insert(bar, "\\");
  return text;
}

std::string code(const Value& value) { return "`" + to_toml(value) + "`"; }

// The names that work, then those that a later version brings.
std::string choices_cell(const KeyInfo& key) {
  std::vector<std::string> now, later;
  if (key.type == Type::kBoolOrChoice) now = {"`true`", "`false`"};
  for (const std::string& choice : key.choices) {
    (not_yet(key, Value{choice}).empty() ? now : later).push_back(code(Value{choice}));
  }
  return join(now) + (key.optional ? " or `\"auto\"`" : "") +
         (later.empty() ? "" : "; later: " + join(later));
}

std::string values_cell(const KeyInfo& key) {
  if (key.type == Type::kChoice || key.type == Type::kBoolOrChoice) return choices_cell(key);
  std::string text = requirement(key);
  if (!key.works.empty()) {
    std::vector<std::string> works;
    for (const Value& value : key.works) works.push_back(code(value));
    text += "; in this version only " + join(works);
  }
  return text;
}

template <class Owner>
std::string row(const KeyOf<Owner>& key, const std::string& shown_name, bool differs) {
  const Value unset = key.get(Owner{});
  const std::string initial = unset == Value{""} ? "" : code(unset);
  return "| `" + shown_name + "`" + (differs ? " *" : "") + " | " + cell(values_cell(key)) + " | " +
         cell(initial) + " | " + cell(key.meaning) + " |\n";
}

constexpr const char* kHead = "| key | values | default | meaning |\n|---|---|---|---|\n";

}  // namespace

std::string reference_markdown() {
  std::string text = kIntroduction;
  for (const std::string& table : table_names()) {
    text += "\n## [" + table + "]\n\n" + kHead;
    for (const Key& key : keys()) {
      if (!key.name.starts_with(table + ".")) continue;
      text += row(key, key.name.substr(table.size() + 1), may_differ_on_resume(key.name));
    }
    if (table != "data") continue;
    text += "\n### [[data.train]], [[data.eval]]\n\n";
    text += kHead;
    for (const SourceKey& key : source_keys()) text += row(key, key.name, false);
  }
  return text;
}

}  // namespace temper::recipes
