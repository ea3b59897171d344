#include "recipes/toml_values.h"

#include <algorithm>
#include <sstream>
#include <type_traits>
#include <utility>
#include <vector>

#include "recipes/diagnostic.h"

namespace temper::recipes {
namespace {

std::optional<double> number_of(const toml::node& node) {
  if (const auto* whole = node.as_integer()) return static_cast<double>(whole->get());
  if (const auto* number = node.as_floating_point()) return number->get();
  return std::nullopt;
}

// The elements of an array that all read as T through `read`.
template <class T, class Read>
std::optional<Value> list_of(const toml::node& node, Read read) {
  const toml::array* array = node.as_array();
  if (!array) return std::nullopt;
  std::vector<T> elements;
  for (const toml::node& element : *array) {
    const auto value = read(element);
    if (!value) return std::nullopt;
    elements.push_back(*value);
  }
  return elements;
}

template <class T>
std::optional<T> exactly(const toml::node& node) {
  return node.value_exact<T>();
}

// A table whose values all read as T.
template <class T>
std::optional<Value> map_of(const toml::node& node) {
  const toml::table* table = node.as_table();
  if (!table) return std::nullopt;
  std::map<std::string, T> entries;
  for (const auto& [key, value] : *table) {
    const auto entry = exactly<T>(value);
    if (!entry) return std::nullopt;
    entries.emplace(key.str(), *entry);
  }
  return entries;
}

bool is_quoted(const std::string& text) {
  return text.size() >= 2 && (text.front() == '"' || text.front() == '\'') &&
         text.back() == text.front();
}

}  // namespace

std::string shown(const toml::node& node) {
  if (node.is_array_of_tables()) return "[{...}]";
  if (node.is_table()) return "{...}";
  std::ostringstream out;
  if (const auto* array = node.as_array()) {
    std::vector<std::string> elements;
    for (const toml::node& element : *array) elements.push_back(shown(element));
    out << '[' << join(elements) << ']';
  } else if (const auto* number = node.as_floating_point()) {
    out << to_toml(Value{number->get()});
  } else if (const auto* text = node.as_string()) {
    out << in_quotes(text->get());
  } else {
    node.visit([&](const auto& typed) { out << typed; });
  }
  std::string text = out.str();
  std::replace(text.begin(), text.end(), '\n', ' ');
  constexpr size_t kLongest = 80;
  if (text.size() > kLongest) text = text.substr(0, kLongest - 3) + "...";
  return text;
}

std::optional<Value> value_of(const KeyInfo& key, const toml::node& node) {
  const auto text = node.value_exact<std::string>();
  if (key.optional && text == "auto") return Value{};
  const auto as_value = [](const auto& found) {
    return found ? std::optional<Value>(*found) : std::nullopt;
  };
  switch (key.type) {
    case Type::kBool:
      return as_value(node.value_exact<bool>());
    case Type::kInt:
      return as_value(node.value_exact<int64_t>());
    case Type::kNumber:
      return as_value(number_of(node));
    case Type::kString:
    case Type::kChoice:
      return as_value(text);
    case Type::kBoolOrChoice:
      return text ? as_value(text) : as_value(node.value_exact<bool>());
    case Type::kStrings:
      return list_of<std::string>(node, exactly<std::string>);
    case Type::kStringOrStrings:
      return text ? as_value(text) : list_of<std::string>(node, exactly<std::string>);
    case Type::kNumbers:
      return list_of<double>(node, number_of);
    case Type::kInts:
      return list_of<int64_t>(node, exactly<int64_t>);
    case Type::kIntOrInts:
      return node.is_array() ? list_of<int64_t>(node, exactly<int64_t>)
                             : as_value(node.value_exact<int64_t>());
    case Type::kMap:
      return map_of<std::string>(node);
    case Type::kIntMap:
      return map_of<int64_t>(node);
  }
  return std::nullopt;
}

std::unique_ptr<toml::node> toml_value(const std::string& text) {
  try {
    toml::table table = toml::parse("value = " + text);
    // More than one key: the text went on after a line break.
    if (table.size() != 1) return nullptr;
    toml::node& node = table.begin()->second;
    return node.visit([](auto& typed) -> std::unique_ptr<toml::node> {
      return std::make_unique<std::remove_cvref_t<decltype(typed)>>(std::move(typed));
    });
  } catch (const toml::parse_error&) {
    return nullptr;
  }
}

std::unique_ptr<toml::node> override_value(const KeyInfo& key, const std::string& text) {
  const bool may_be_list = key.type == Type::kStringOrStrings;
  const bool is_string = key.type == Type::kString || key.type == Type::kChoice || may_be_list;
  if (!is_string || is_quoted(text) || (may_be_list && text.starts_with("["))) {
    if (auto node = toml_value(text)) return node;
  }
  return std::make_unique<toml::value<std::string>>(text);
}

}  // namespace temper::recipes
