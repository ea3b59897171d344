#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "recipes/diagnostic.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

std::string plain(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15
             ? std::to_string(static_cast<int64_t>(value))
             : to_toml(Value{value});
}

std::string or_auto(const KeyInfo& key) { return key.optional ? " or \"auto\"" : ""; }

std::string choices_text(const std::vector<std::string>& choices) {
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
  const std::string range = key.range.text().empty() ? "" : ", " + key.range.text();
  switch (key.type) {
    case Type::kBool:
      return "true or false";
    case Type::kInt:
      return "a whole number" + range + or_auto(key);
    case Type::kNumber:
      return "a number" + range + or_auto(key);
    case Type::kString:
      return "a string" + or_auto(key);
    case Type::kChoice:
      return choices_text(key.choices) + or_auto(key);
    case Type::kBoolOrChoice:
      return "true, false or " + all_in_quotes(key.choices);
    case Type::kStrings:
      return "a list of strings" +
             (key.choices.empty() ? "" : ", each " + choices_text(key.choices));
    case Type::kNumbers:
      return "a list of numbers" + (range.empty() ? "" : ", each " + key.range.text());
    case Type::kMap:
      return "a table of strings, as { prompt = \"question\" }";
  }
  return "";
}

std::string problem_with(const KeyInfo& key, const Value& value) {
  const auto out_of_range = [&](double number) {
    return std::isfinite(number) && key.range.contains(number) ? "" : "must be " + requirement(key);
  };
  const auto not_a_choice = [&](const std::string& name) -> std::string {
    if (key.choices.empty() ||
        std::find(key.choices.begin(), key.choices.end(), name) != key.choices.end())
      return "";
    const std::string nearest = nearest_name(name, key.choices);
    return "must be " + requirement(key) +
           (nearest.empty() ? "" : " (nearest: " + in_quotes(nearest) + ")");
  };
  if (const auto* whole = std::get_if<int64_t>(&value))
    return out_of_range(static_cast<double>(*whole));
  if (const auto* number = std::get_if<double>(&value)) return out_of_range(*number);
  if (const auto* text = std::get_if<std::string>(&value)) {
    if (key.not_empty && text->empty()) return "must not be empty";
    return not_a_choice(*text);
  }
  if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
    if (key.not_empty && texts->empty()) return "must not be empty: " + requirement(key);
    for (const std::string& text : *texts) {
      if (const std::string problem = not_a_choice(text); !problem.empty()) return problem;
    }
  }
  if (const auto* numbers = std::get_if<std::vector<double>>(&value)) {
    for (const double number : *numbers) {
      if (const std::string problem = out_of_range(number); !problem.empty()) return problem;
    }
  }
  if (const auto* entries = std::get_if<std::map<std::string, std::string>>(&value)) {
    for (const auto& [name, column] : *entries) {
      if (const std::string problem = not_a_choice(name); !problem.empty()) return problem;
      if (column.empty()) return "the name of a column must not be empty";
    }
  }
  return "";
}

std::string not_yet(const KeyInfo& key, const Value& value) {
  if (key.works.empty() ||
      std::find(key.works.begin(), key.works.end(), value) != key.works.end()) {
    return "";
  }
  std::vector<std::string> texts;
  for (const Value& works : key.works) texts.push_back(to_toml(works));
  return "not in this version, which has only " + join(texts);
}

bool may_differ_on_resume(std::string_view key) {
  constexpr std::array<std::string_view, 5> kWholeTables = {"log.", "eval.", "checkpoint.",
                                                            "export.", "parallel."};
  constexpr std::array<std::string_view, 5> kKeys = {"run.resume", "run.overwrite", "train.threads",
                                                     "train.steps", "train.epochs"};
  return std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end() ||
         std::any_of(kWholeTables.begin(), kWholeTables.end(),
                     [&](auto table) { return key.starts_with(table); });
}

const std::vector<DataSource>* sources_of(const Recipe& recipe, std::string_view list) {
  if (list == "data.train") return &recipe.data.train;
  if (list == "data.eval") return &recipe.data.eval;
  return nullptr;
}

std::vector<DataSource>* sources_of(Recipe& recipe, std::string_view list) {
  return const_cast<std::vector<DataSource>*>(sources_of(std::as_const(recipe), list));
}

}  // namespace temper::recipes
