#include "recipes/reference.h"

#include <algorithm>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/objective_kinds.h"
#include "recipes/peft_methods.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

constexpr const char* kIntroduction = R"(# The recipe

This page is made from the rows of `recipes/schema.cpp`, `peft_rows.cpp`, `peft_methods.cpp`, `objective_rows.cpp` and
`objective_kinds.cpp`; after a change there:

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

// ---- tables whose keys depend on a kind ---------------------------------------------------------

constexpr const char* kKindsHead =
    "\n| key | of | values | default | meaning |\n|---|---|---|---|---|\n";

// A kind by its name, and the key as it has it.
struct Owner {
  std::string name;
  const Field* field;
};

template <class Kinds>
std::vector<Owner> owners_of(const Kinds& kinds, const std::string& key) {
  std::vector<Owner> owners;
  for (const auto& kind : kinds) {
    if (const Field* field = kind.field(key)) owners.push_back({kind.name, field});
  }
  return owners;
}

// "`8`", or "`8` (vera: `256`)": the first kind's default, and where others differ.
std::string default_cell(const std::vector<Owner>& owners) {
  std::string usual;
  std::vector<std::string> others;
  for (const Owner& owner : owners) {
    const Value& initial = owner.field->initial;
    const std::string shown = initial == Value{} || initial == Value{""} ? "" : code(initial);
    if (&owner == &owners.front()) usual = shown;
    if (shown != usual) others.push_back(owner.name + ": " + (shown.empty() ? "none" : shown));
  }
  return usual + (others.empty() ? "" : (usual.empty() ? "(" : " (") + join(others) + ")");
}

// The row of a key that some of `kinds` have, or, where none says so, all.
template <class Table, class Kinds>
std::string kinds_row(const KeyOf<Table>& key, const std::string& name, const Kinds& kinds,
                      const Table& unset) {
  const std::vector<Owner> owners = owners_of(kinds, key.name);
  std::vector<std::string> names;
  for (const Owner& owner : owners) names.push_back(owner.name);
  KeyInfo values = key;
  values.optional = false;  // said above the table
  const bool all = owners.empty() || owners.size() == kinds.size();
  const Value of_all = key.get(unset);
  const std::string initial = !owners.empty()       ? default_cell(owners)
                              : of_all == Value{""} ? ""
                                                    : code(of_all);
  return "| `" + name + "` | " + (all ? "all" : join(names)) + " | " + cell(values_cell(values)) +
         " | " + cell(initial) + " | " + cell(key.meaning) + " |\n";
}

constexpr const char* kPeft = R"(
Leave the table out for full fine-tuning. Which keys there are depends on `method`, and so do their defaults, which are those
of PEFT 0.21.2; a key of another method is refused. A key without a default here is left to the method;
`"auto"` is the default, too.

| method | what it trains |
|---|---|
)";

std::string peft_markdown() {
  std::string text = kPeft;
  for (const PeftMethod& method : peft_methods()) {
    text += "| `" + method.name + "` | " + cell(method.meaning) + " |\n";
  }
  text += kKindsHead;
  Recipe lora;
  lora.peft.method = "lora";
  for (const Key& key : keys()) {
    if (!key.name.starts_with("peft.")) continue;
    text += kinds_row(key, key.name.substr(std::string("peft.").size()), peft_methods(), lora);
  }
  return text;
}

constexpr const char* kObjective = R"(
Which keys there are depends on `kind`, and so do their defaults, which are those of TRL 1.16.0; a key of another kind is
refused. A key without a default here is unset; `"auto"` is the default, too.

| kind | what is learnt | `loss_type` |
|---|---|---|
)";

constexpr const char* kRewards = R"(
### [[objective.rewards]]

What scores a completion; the kinds that sample need at least one. Which keys there are depends on `kind`.

| kind | its score |
|---|---|
)";

std::string objective_markdown() {
  std::string text = kObjective;
  for (const ObjectiveKind& kind : objective_kinds()) {
    std::vector<std::string> losses;
    if (const Field* field = kind.field("loss_type")) {
      for (const Value& loss : field->allowed) losses.push_back(code(loss));
    }
    text += "| `" + kind.name + "` | " + cell(kind.meaning) + " | " + join(losses) + " |\n";
  }
  text += kKindsHead;
  for (const Key& key : keys()) {
    if (!key.name.starts_with("objective.")) continue;
    text += kinds_row(key, key.name.substr(std::string("objective.").size()), objective_kinds(),
                      Recipe{});
  }
  text += kRewards;
  for (const Kind& kind : reward_kinds()) {
    text += "| `" + kind.name + "` | " + cell(kind.meaning) + " |\n";
  }
  text += kKindsHead;
  for (const RewardKey& key : reward_keys()) {
    text += kinds_row(key, key.name, reward_kinds(), Reward{});
  }
  return text;
}

}  // namespace

std::string reference_markdown() {
  std::string text = kIntroduction;
  for (const std::string& table : table_names()) {
    text += "\n## [" + table + "]\n";
    if (table == "peft" || table == "objective") {
      text += table == "peft" ? peft_markdown() : objective_markdown();
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
