#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>
#include <utility>
#include <variant>

#include "recipes/diagnostic.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

std::string plain(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15
             ? std::to_string(static_cast<int64_t>(value))
             : to_toml(Value{value});
}

std::string or_auto(const KeyInfo& key) { return key.optional ? ", or \"auto\"" : ""; }

std::string one_of(const std::vector<std::string>& choices) {
  return choices.size() == 1 ? in_quotes(choices.front()) : "one of " + all_in_quotes(choices);
}

}  // namespace

bool Range::contains(double value) const {
  return (low_open ? value > low : value >= low) && (high_open ? value < high : value <= high);
}

std::string Range::text() const {
  const bool has_low = std::isfinite(low);
  const bool has_high = std::isfinite(high);
  if (has_low && has_high && !low_open && !high_open) {
    return "from " + plain(low) + " to " + plain(high);
  }
  std::string text;
  if (has_low) text = (low_open ? "above " : "at least ") + plain(low);
  if (has_high)
    text += (text.empty() ? "" : " and ") + std::string(high_open ? "below " : "at most ") +
            plain(high);
  return text;
}

std::string requirement(const KeyInfo& key) {
  const std::string range = key.range.text();
  const std::string unit = key.unit.empty() ? "" : " of " + key.unit;
  const std::string limits = unit + (range.empty() ? "" : ", " + range) + or_auto(key);
  const std::string names = key.choices.empty() ? "" : one_of(key.choices);
  switch (key.type) {
    case Type::kBool:
      return "true or false" + or_auto(key);
    case Type::kInt:
      return "a whole number" + limits;
    case Type::kNumber:
      return "a number" + limits;
    case Type::kString:
      return "a string" + or_auto(key);
    case Type::kChoice:
      return names + or_auto(key);
    case Type::kBoolOrChoice:
      return (key.optional ? "true, false, " : "true, false or ") + all_in_quotes(key.choices) +
             or_auto(key);
    case Type::kStrings:
      return "a list of strings" + (names.empty() ? "" : ", each " + names) + or_auto(key);
    case Type::kStringOrStrings:
      return "a string or a list of strings" + or_auto(key);
    case Type::kNumbers:
      return "a list of numbers" + (range.empty() ? "" : ", each " + range);
    case Type::kInts:
      return "a list of whole numbers" + (range.empty() ? "" : ", each " + range) + or_auto(key);
    case Type::kIntOrInts:
      return "a whole number or a list of them" + (range.empty() ? "" : ", each " + range) +
             or_auto(key);
    case Type::kMap:
      return "a table of strings, as { prompt = \"question\" }; its keys: " + names;
    case Type::kIntMap:
      return "a table of whole numbers, as { q_proj = 16 }" +
             (range.empty() ? "" : ", each " + range);
  }
  return "";
}

namespace {

// Overloads on what a value holds; "" is right.

std::string problem(const KeyInfo& key, double number) {
  if (!std::isfinite(number)) return "must be finite";
  return key.range.contains(number) ? "" : "must be " + key.range.text();
}

// Whether `name` is `choice`, or `choice` with a whole number for its end "<k>".
bool is_choice(const std::string& name, const std::string& choice) {
  constexpr std::string_view kNumber = "<k>";
  if (!choice.ends_with(kNumber)) return name == choice;
  const std::string start = choice.substr(0, choice.size() - kNumber.size());
  const std::string digits = name.starts_with(start) ? name.substr(start.size()) : "";
  return !digits.empty() && digits.size() < 7 &&
         digits.find_first_not_of("0123456789") == std::string::npos;
}

std::string unknown_choice(const KeyInfo& key, const std::string& name) {
  const std::vector<std::string>& choices = key.choices;
  if (choices.empty() ||
      std::any_of(choices.begin(), choices.end(),
                  [&](const std::string& choice) { return is_choice(name, choice); })) {
    return "";
  }
  const std::string nearest = nearest_name(name, choices);
  return in_quotes(name) + " is not " + one_of(choices) +
         (nearest.empty() ? "" : " (nearest: " + in_quotes(nearest) + ")");
}

std::string problem(const KeyInfo& key, const std::string& text) {
  if (key.not_empty && text.empty()) return "must not be empty";
  if (unknown_choice(key, text).empty()) return "";
  const std::string nearest = nearest_name(text, key.choices);
  return "must be " + requirement(key) +
         (nearest.empty() ? "" : " (nearest: " + in_quotes(nearest) + ")");
}

std::string problem(const KeyInfo& key, const std::vector<std::string>& texts) {
  if (key.not_empty && texts.empty()) return "must not be empty";
  for (const std::string& text : texts) {
    if (const std::string found = unknown_choice(key, text); !found.empty()) return found;
  }
  return "";
}

template <class Number>
std::string problem(const KeyInfo& key, const std::vector<Number>& numbers) {
  if (key.not_empty && numbers.empty()) return "must not be empty";
  for (const Number number : numbers) {
    if (const std::string found = problem(key, static_cast<double>(number)); !found.empty())
      return "each " + found;
  }
  return "";
}

std::string problem(const KeyInfo& key, const std::map<std::string, std::string>& entries) {
  for (const auto& [name, column] : entries) {
    if (const std::string found = unknown_choice(key, name); !found.empty()) return found;
    if (column.empty()) return "the name of a column must not be empty";
  }
  return "";
}

std::string problem(const KeyInfo& key, const std::map<std::string, int64_t>& entries) {
  for (const auto& [name, number] : entries) {
    if (const std::string found = problem(key, static_cast<double>(number)); !found.empty())
      return name + ": " + found;
  }
  return "";
}

}  // namespace

std::string problem_with(const KeyInfo& key, const Value& value) {
  return std::visit(
      [&](const auto& held) -> std::string {
        using T = std::remove_cvref_t<decltype(held)>;
        if constexpr (std::is_same_v<T, std::monostate> || std::is_same_v<T, bool>)
          return "";
        else if constexpr (std::is_same_v<T, int64_t>)
          return problem(key, static_cast<double>(held));
        else
          return problem(key, held);
      },
      value);
}

std::string not_yet(const KeyInfo& key, const Value& value) {
  const auto is_value = [&](const Value& works) {
    const std::string* name = std::get_if<std::string>(&value);
    const std::string* choice = std::get_if<std::string>(&works);
    return value == works || (name && choice && is_choice(*name, *choice));
  };
  const bool unset = value == Value{} || value == Value{""};
  if (key.works.empty() || unset || std::any_of(key.works.begin(), key.works.end(), is_value)) {
    return "";
  }
  std::vector<std::string> texts;
  for (const Value& works : key.works) texts.push_back(to_toml(works));
  return "not in this version, which has only " + join(texts);
}

bool may_differ_on_resume(std::string_view key) {
  constexpr std::array<std::string_view, 5> kWholeTables = {"log.", "eval.", "checkpoint.",
                                                            "export.", "parallel."};
  constexpr std::array<std::string_view, 7> kKeys = {
      "run.resume",   "run.overwrite", "train.device", "train.threads",
      "train.on_nan", "train.steps",   "train.epochs"};
  return std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end() ||
         std::any_of(kWholeTables.begin(), kWholeTables.end(),
                     [&](auto table) { return key.starts_with(table); });
}

}  // namespace temper::recipes
