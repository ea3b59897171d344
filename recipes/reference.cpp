#include "recipes/reference.h"

#include <algorithm>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

constexpr const char* kIntroduction = R"(# The recipe

This page is made from the rows of `recipes/schema.cpp`, `peft_rows.cpp` and `peft_methods.cpp`; after a change there:

    ninja -C build temper_recipe_reference && build/bin/temper_recipe_reference > docs/recipe.md

A recipe is a TOML file in which only what differs from the defaults is written. Unknown keys are errors, and so is
a value that this version cannot do or that would have no effect; all findings of a recipe are reported at once.

- `extends = "base.toml"`, or a list, takes the values of other recipes first. These paths are relative to the
  directory of the recipe that says it; all other relative paths are relative to the working directory.
- `key=value` on the command line comes last: `optimizer.lr=1e-4`, `model.path=models/llama`, `'optimizer.betas=[0.9, 0.95]'`.
  A string needs no quotes; lists and tables are TOML. `data.train.0.path=rows.jsonl` changes an entry of a list, and an index
  one past the end appends one.
- Where a later layer gives `train.steps` and an earlier one `train.epochs` (or the other way round), the later counts.
- `"auto"` leaves a key to Temper.
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
  std::vector<Value> choices;
  if (key.type == Type::kBoolOrChoice) choices = {true, false};
  choices.insert(choices.end(), key.choices.begin(), key.choices.end());
  for (const Value& choice : choices) {
    (not_yet(key, choice).empty() ? now : later).push_back(code(choice));
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

// ---- [peft] ------------------------------------------------------------------------------------

constexpr const char* kPeft = R"(
Leave the table out for full fine-tuning. Which keys there are depends on `method`, and so do their defaults, which are those
of PEFT 0.21.2; a key of another method is refused. A key without a default here is left to the method;
`"auto"` is the default, too.

| method | what it trains |
|---|---|
)";

constexpr const char* kPeftHead =
    "\n| key | of | values | default | meaning |\n|---|---|---|---|---|\n";

std::string methods_cell(const std::string& key) {
  const std::vector<std::string> methods = methods_with(key);
  return methods.size() == peft_methods().size() ? "all" : join(methods);
}

// "`8`", or "`8` (vera: `256`)": the first method's default, and where others differ.
std::string peft_default_cell(const Key& key) {
  if (is_of_every_method(key.name)) {
    Recipe recipe;
    recipe.peft.method = "lora";
    return code(key.get(recipe));
  }
  std::string usual;
  bool first = true;
  std::vector<std::string> others;
  for (const PeftMethod& method : peft_methods()) {
    const PeftField* field = method.field(key.name);
    if (!field) continue;
    const std::string initial = field->initial == Value{} ? "" : code(field->initial);
    if (first) usual = initial;
    if (!first && initial != usual) {
      others.push_back(method.name + ": " + (initial.empty() ? "none" : initial));
    }
    first = false;
  }
  return usual + (others.empty() ? "" : " (" + join(others) + ")");
}

std::string peft_markdown() {
  std::string text = kPeft;
  for (const PeftMethod& method : peft_methods()) {
    text += "| `" + method.name + "` | " + cell(method.meaning) + " |\n";
  }
  text += kPeftHead;
  for (const Key& key : keys()) {
    if (!key.name.starts_with("peft.")) continue;
    KeyInfo values = key;
    values.optional = false;  // said above the table
    text += "| `" + key.name.substr(std::string("peft.").size()) + "` | " + methods_cell(key.name) +
            " | " + cell(values_cell(values)) + " | " + cell(peft_default_cell(key)) + " | " +
            cell(key.meaning) + " |\n";
  }
  return text;
}

}  // namespace

std::string reference_markdown() {
  std::string text = kIntroduction;
  for (const std::string& table : table_names()) {
    text += "\n## [" + table + "]\n";
    if (table == "peft") {
      text += peft_markdown();
      continue;
    }
    text += std::string("\n") + kHead;
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
