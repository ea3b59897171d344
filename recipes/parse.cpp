#include "recipes/parse.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <system_error>

#include <toml++/toml.h>

#include "recipes/diagnostic.h"
#include "recipes/findings.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"
#include "recipes/toml_values.h"
#include "recipes/validate.h"

namespace temper::recipes {
namespace {

namespace fs = std::filesystem;

// One source of values: a file, or the command line.
struct Layer {
  std::string name;
  int order = 0;
  bool command_line = false;
  int argument = 0;  // of the command line: the override being read, its "line"
};

// ---- names -------------------------------------------------------------------------------------

std::vector<std::string> split(const std::string& dotted) {
  std::vector<std::string> parts(1);
  for (const char c : dotted) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

std::string unknown(const std::string& what, const std::string& nearest) {
  return "unknown " + what + (nearest.empty() ? "" : " (nearest: " + nearest + ")");
}

// The nearest key in the same table, else the key of that last name in another table.
std::string unknown_key(const std::string& name) {
  const size_t dot = name.rfind('.');
  const std::string table = dot == std::string::npos ? "" : name.substr(0, dot + 1);
  const std::string last = name.substr(table.size());
  std::vector<std::string> siblings;
  std::string namesake;
  for (const Key& key : keys()) {
    if (key.name.starts_with(table)) {
      const size_t end = key.name.find('.', table.size());
      siblings.push_back(key.name.substr(table.size(), end - table.size()));
    }
    if (namesake.empty() && key.name.substr(key.name.rfind('.') + 1) == last) namesake = key.name;
  }
  if (table.empty()) siblings.push_back("extends");
  const std::string nearest = nearest_name(last, siblings);
  return unknown("key", nearest.empty() ? namesake : table + nearest);
}

// A table of the recipe ("peft"), or one inside it ("peft.eva_config").
bool is_table(const std::string& name) {
  return std::any_of(keys().begin(), keys().end(),
                     [&](const Key& key) { return key.name.starts_with(name + "."); });
}

// ---- lists of tables ---------------------------------------------------------------------------

template <class Entry>
const KeyOf<Entry>* find_entry_key(const std::string& name) {
  for (const KeyOf<Entry>& key : keys_of<Entry>()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

template <class Entry>
std::string unknown_entry_key(const std::string& name) {
  std::vector<std::string> names;
  for (const KeyOf<Entry>& key : keys_of<Entry>()) names.push_back(key.name);
  return unknown("key", nearest_name(name, names));
}

template <class Entry>
constexpr const char* kMustBeEntry = "";
template <>
constexpr const char* kMustBeEntry<DataSource> =
    "must be a table with a path: { path = \"rows.jsonl\" }";
template <>
constexpr const char* kMustBeEntry<Reward> = "must be a table with a kind: { kind = \"accuracy\" }";

// ---- reading -----------------------------------------------------------------------------------

class Reader {
 public:
  explicit Reader(std::string file) : findings(std::move(file)) {}

  /// A recipe file after the ones that it extends. `chain`: the files that led here.
  void read_file(const fs::path& file, std::vector<fs::path> chain);
  void read_overrides(const std::vector<std::string>& overrides);
  /// After everything is read: [peft] without a method is LoRA.
  void settle_method();

  Recipe recipe;
  Findings findings;

 private:
  void read_extended(const toml::node& extends, const fs::path& file,
                     const std::vector<fs::path>& chain);
  void read_table(const toml::table& table, const std::string& prefix);
  void read_member(const std::string& name, const toml::node& node, const Place& place);
  template <class Entry>
  void read_list(std::vector<Entry>& entries, const std::string& list, const toml::node& node,
                 const Place& place);
  template <class Entry>
  void read_entry(Entry& entry, const std::string& prefix, const toml::node& node,
                  const Place& place);
  template <class Owner>
  void store(const KeyOf<Owner>& key, Owner& owner, const std::string& name, const toml::node& node,
             const Place& place);
  void read_override(const std::string& text);
  template <class Entry>
  void read_entry_override(std::vector<Entry>& entries, const std::vector<std::string>& path,
                           const std::string& value, const Place& place);
  template <class Entry>
  void forget_entry(const std::string& entry);
  void settle_length_of_training();
  Place place_of(const std::string& name, const toml::source_region& region,
                 const std::string& value) const;

  Layer layer_;
  int layers_ = 0;
  bool adapted_ = false;  // [peft] was written, if only in part
};

Place Reader::place_of(const std::string& name, const toml::source_region& region,
                       const std::string& value) const {
  const int line = layer_.command_line ? layer_.argument : static_cast<int>(region.begin.line);
  return {layer_.command_line ? layer_.name : layer_.name + ":" + std::to_string(line),
          value.empty() ? name : name + " = " + value, layer_.order, line};
}

void Reader::read_file(const fs::path& file, std::vector<fs::path> chain) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  chain.push_back(file);
  toml::table table;
  try {
    table = toml::parse(text.str(), file.string());
  } catch (const toml::parse_error& error) {
    const toml::source_position at = error.source().begin;
    const std::string problem(error.description());
    const Place place{file.string() + ":" + std::to_string(at.line),
                      "column " + std::to_string(at.column), layers_++, static_cast<int>(at.line)};
    return findings.add("", place, "not TOML: " + problem);
  }
  if (const toml::node* extends = table.get("extends")) {
    layer_ = {.name = file.string(), .order = layers_};
    read_extended(*extends, file, chain);
    table.erase("extends");
  }
  layer_ = {.name = file.string(), .order = layers_++};
  read_table(table, "");
  settle_length_of_training();
}

// Why `file` cannot be read, or "".
std::string unreadable(const fs::path& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return "no such file";
  if (fs::is_directory(file, ignored)) return "a directory, not a recipe";
  std::ifstream stream(file);
  return stream ? "" : "cannot be read (permissions?)";
}

void Reader::read_extended(const toml::node& extends, const fs::path& file,
                           const std::vector<fs::path>& chain) {
  const Place place = place_of("extends", extends.source(), shown(extends));
  const KeyInfo strings{.name = "extends",
                        .type = Type::kStrings,
                        .optional = false,
                        .choices = {},
                        .range = {},
                        .unit = "",
                        .not_empty = false,
                        .works = {},
                        .meaning = ""};
  std::vector<std::string> names;
  if (const auto one = extends.value_exact<std::string>()) {
    names = {*one};
  } else if (const auto list = value_of(strings, extends)) {
    names = std::get<std::vector<std::string>>(*list);
  } else {
    return findings.add("extends", place, "must be a string or a list of strings");
  }
  for (const std::string& name : names) {
    const fs::path base = (file.parent_path() / name).lexically_normal();
    if (const std::string problem = unreadable(base); !problem.empty()) {
      findings.add("extends", place,
                   base.string() + ": " + problem +
                       " (extends is relative to the directory of the recipe that says it)");
      continue;
    }
    std::string cycle;
    std::error_code ignored;
    for (const fs::path& before : chain) {
      if (!cycle.empty() || fs::equivalent(before, base, ignored))
        cycle += before.string() + " -> ";
    }
    if (!cycle.empty()) {
      findings.add("extends", place, "recipes extend each other: " + cycle + base.string());
      continue;
    }
    read_file(base, chain);
  }
}

void Reader::read_table(const toml::table& table, const std::string& prefix) {
  for (const auto& [key, node] : table) {
    const std::string name = prefix + std::string(key.str());
    read_member(name, node, place_of(name, key.source(), node.is_table() ? "" : shown(node)));
  }
}

void Reader::read_member(const std::string& name, const toml::node& node, const Place& place) {
  adapted_ = adapted_ || name == "peft";
  if (const Later* later = find_later(name)) return findings.add(name, place, later->line);
  if (const Key* key = find_key(name)) return store(*key, recipe, name, node, place);
  if (is_list(name)) {
    return use_list(recipe, name,
                    [&](auto& entries) { read_list(entries, name, node, place); });
  }
  if (!is_table(name)) {
    const bool inside = name.find('.') != std::string::npos;
    if (!node.is_table() || inside) return findings.add(name, place, unknown_key(name));
    return findings.add(name, place, unknown("table", nearest_name(name, table_names())));
  }
  if (const toml::table* table = node.as_table()) return read_table(*table, name + ".");
  findings.add(name, place, "must be a table: [" + name + "]");
}

template <class Owner>
void Reader::store(const KeyOf<Owner>& key, Owner& owner, const std::string& name,
                   const toml::node& node, const Place& place) {
  const std::optional<Value> value = value_of(key, node);
  const std::string problem = value ? problem_with(key, *value) : "must be " + requirement(key);
  findings.wrote(name, place);
  if (!problem.empty()) return findings.add(name, place, problem);
  key.set(owner, *value);
}

// The entry is about to be replaced as a whole.
template <class Entry>
void Reader::forget_entry(const std::string& entry) {
  for (const KeyOf<Entry>& key : keys_of<Entry>()) findings.forget(entry + "." + key.name);
}

template <class Entry>
void Reader::read_list(std::vector<Entry>& entries, const std::string& list, const toml::node& node,
                       const Place& place) {
  const toml::array* array = node.as_array();
  if (!array)
    return findings.add(list, place,
                        "must be a list of tables, each under its own [[" + list + "]]");
  for (size_t i = 0; i < entries.size(); ++i) forget_entry<Entry>(list + "." + std::to_string(i));
  entries.assign(array->size(), Entry{});
  findings.wrote(list, place);
  for (size_t i = 0; i < entries.size(); ++i) {
    const toml::node& element = (*array)[i];
    const std::string name = list + "." + std::to_string(i);
    const Place at = layer_.command_line ? place
                                         : place_of(name, element.source(),
                                                    element.is_table() ? "" : shown(element));
    read_entry(entries[i], name, element, at);
  }
}

template <class Entry>
void Reader::read_entry(Entry& entry, const std::string& prefix, const toml::node& node,
                        const Place& place) {
  findings.wrote(prefix, place);
  const toml::table* table = node.as_table();
  if (!table) return findings.add(prefix, place, kMustBeEntry<Entry>);
  for (const auto& [key, value] : *table) {
    const std::string last(key.str());
    const std::string name = prefix + "." + last;
    const Place at = place_of(name, key.source(), shown(value));
    if (const KeyOf<Entry>* row = find_entry_key<Entry>(last)) {
      store(*row, entry, name, value, at);
    } else {
      findings.add(name, at, unknown_entry_key<Entry>(last));
    }
  }
}

// A layer that gives one of train.steps and train.epochs replaces the other of earlier layers.
void Reader::settle_length_of_training() {
  const auto here = [&](const std::string& key) {
    const Place* place = findings.place(key);
    return place && place->layer == layer_.order;
  };
  const bool steps = here("train.steps") && recipe.train.steps;
  const bool epochs = here("train.epochs");
  if (steps && epochs) {
    findings.add({"train.steps"}, "", "train.epochs is given too: leave one out");
  } else if (steps) {
    recipe.train.epochs = Train{}.epochs;
    findings.forget("train.epochs");
  } else if (epochs) {
    recipe.train.steps.reset();
    findings.forget("train.steps");
  }
}

// ---- overrides ---------------------------------------------------------------------------------

void Reader::read_overrides(const std::vector<std::string>& overrides) {
  layer_ = {.name = "command line", .order = layers_++, .command_line = true};
  for (const std::string& text : overrides) {
    ++layer_.argument;
    read_override(text);
  }
  settle_length_of_training();
}

void Reader::read_override(const std::string& text) {
  const Place place{layer_.name, text, layer_.order, layer_.argument};
  // TOML is UTF-8, and so is every recipe that is written again.
  if (!toml_value(in_quotes(text))) return findings.add(text, place, "must be UTF-8 text");
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0)
    return findings.add(text, place, "must be key=value");
  const std::string name = text.substr(0, equals);
  const std::string value = text.substr(equals + 1);
  const std::vector<std::string> path = split(name);
  // What comes later may be a table: peft.r=8.
  for (size_t end = name.find('.');; end = name.find('.', end + 1)) {
    const std::string prefix = name.substr(0, end);
    if (const Later* later = find_later(prefix)) return findings.add(prefix, place, later->line);
    if (end == std::string::npos) break;
  }
  adapted_ = adapted_ || name.starts_with("peft.");
  if (name == "extends") return findings.add(name, place, "stands in recipe files only");
  if (const Key* key = find_key(name))
    return store(*key, recipe, name, *override_value(*key, value), place);
  const std::string list = path.size() > 2 ? path[0] + "." + path[1] : "";
  if (is_list(list)) {
    return use_list(recipe, list,
                    [&](auto& entries) { read_entry_override(entries, path, value, place); });
  }
  const bool table = is_list(name) || is_table(name);
  if (!table) return findings.add(name, place, unknown_key(name));
  const auto node = toml_value(value);
  if (!node)
    return findings.add(name, place,
                        "must be a TOML value, as {key = 1} or [{path = \"rows.jsonl\"}]");
  read_member(name, *node, place);
}

// path: data, train, INDEX[, KEY[, COLUMN]]
template <class Entry>
void Reader::read_entry_override(std::vector<Entry>& entries, const std::vector<std::string>& path,
                                 const std::string& value, const Place& place) {
  const std::string list = path[0] + "." + path[1];
  const std::string& digits = path[2];
  const bool is_index = !digits.empty() && digits.size() < 7 &&
                        digits.find_first_not_of("0123456789") == std::string::npos;
  if (!is_index) {
    return findings.add(list, place, "a list: say which entry, as " + list + ".0." + digits);
  }
  const size_t index = std::stoul(digits);
  const std::string count = std::to_string(entries.size());
  if (index > entries.size()) {
    return findings.add(list, place,
                        list + " has " + count + (entries.size() == 1 ? " entry" : " entries") +
                            ": the index must be at most " + count + ", which appends");
  }
  const std::string name = list + "." + std::to_string(index);
  const KeyOf<Entry>* key = path.size() > 3 ? find_entry_key<Entry>(path[3]) : nullptr;
  const bool is_column = key && path.size() == 5 && key->type == Type::kMap && !path[4].empty();
  if (path.size() > 3 && (!key || (path.size() > 4 && !is_column))) {
    return findings.add(name, place, unknown_entry_key<Entry>(path[3]));
  }
  if (index == entries.size()) {
    entries.emplace_back();
    findings.wrote(name, place);
  }
  Entry& entry = entries[index];
  if (is_column) {
    const toml::table columns{{path[4], value}};
    // One more column beside those that are there.
    auto before = std::get<std::map<std::string, std::string>>(key->get(entry));
    store(*key, entry, name + "." + key->name, columns, place);
    auto all = std::get<std::map<std::string, std::string>>(key->get(entry));
    all.merge(before);
    key->set(entry, all);
  } else if (key) {
    store(*key, entry, name + "." + key->name, *override_value(*key, value), place);
  } else if (const auto node = toml_value(value)) {
    entry = Entry{};
    forget_entry<Entry>(name);
    read_entry(entry, name, *node, place);
  } else {
    findings.add(name, place, kMustBeEntry<Entry>);
  }
}

void Reader::settle_method() {
  if (adapted_ && recipe.peft.method.empty()) recipe.peft.method = "lora";
}

}  // namespace

Recipe parse(const fs::path& file, const std::vector<std::string>& overrides,
             const Setting& setting) {
  if (const std::string problem = unreadable(file); !problem.empty()) {
    throw UserError(file.string() + ": " + problem);
  }
  Reader reader(file.string());
  reader.read_file(file, {});
  // A file that is no TOML says nothing that could be judged.
  if (!reader.findings.clean({""})) reader.findings.throw_if_any();
  reader.read_overrides(overrides);
  reader.settle_method();
  validate(reader.recipe, setting, reader.findings);
  // Of another objective its name is the finding, not each of its keys.
  if (!reader.findings.clean({"objective.kind"}))
    reader.findings.drop_below("objective.", "objective.kind");
  reader.findings.throw_if_any();
  return resolve(std::move(reader.recipe));
}

Recipe peek(const fs::path& file, const std::vector<std::string>& overrides) {
  Reader reader(file.string());
  std::error_code ignored;
  // A pipe can be read once, by parse().
  if (fs::is_regular_file(file, ignored) && unreadable(file).empty()) reader.read_file(file, {});
  reader.read_overrides(overrides);
  return std::move(reader.recipe);
}

}  // namespace temper::recipes
