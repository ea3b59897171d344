#include "trainer/adapters/adapter_fields.h"

#include <cctype>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <type_traits>
#include <variant>

namespace temper::trainer {

namespace {

using data::Json;
using recipes::Type;
using recipes::Value;

// Each returns nothing where the JSON is something else.

std::optional<int64_t> whole(const Json& json) {
  // Python writes 16.0 for an alpha that was computed.
  const bool is_whole = json.is_number_float() && json.get<double>() == std::floor(json.get<double>());
  if (!json.is_number_integer() && !is_whole) return std::nullopt;
  return is_whole ? static_cast<int64_t>(json.get<double>()) : json.get<int64_t>();
}
std::optional<double> number(const Json& json) {
  return json.is_number() ? std::optional(json.get<double>()) : std::nullopt;
}
std::optional<bool> flag(const Json& json) {
  return json.is_boolean() ? std::optional(json.get<bool>()) : std::nullopt;
}
std::optional<std::string> text(const Json& json) {
  return json.is_string() ? std::optional(json.get<std::string>()) : std::nullopt;
}

template <class Element>
std::optional<std::vector<Element>> list(const Json& json,
                                         std::optional<Element> (*read)(const Json&)) {
  if (!json.is_array()) return std::nullopt;
  std::vector<Element> elements;
  for (const Json& one : json) {
    std::optional<Element> element = read(one);
    if (!element) return std::nullopt;
    elements.push_back(std::move(*element));
  }
  return elements;
}

template <class Element>
std::optional<std::map<std::string, Element>> table(const Json& json,
                                                    std::optional<Element> (*read)(const Json&)) {
  if (!json.is_object()) return std::nullopt;
  std::map<std::string, Element> entries;
  for (const auto& [key, one] : json.items()) {
    std::optional<Element> entry = read(one);
    if (!entry) return std::nullopt;
    entries.emplace(key, std::move(*entry));
  }
  return entries;
}

template <class Held>
std::string keep(std::optional<Held> held, Value& value, const char* wanted) {
  if (!held) return wanted;
  value = std::move(*held);
  return "";
}

}  // namespace

Json to_json(const Value& value) {
  return std::visit(
      [](const auto& held) -> Json {
        if constexpr (std::is_same_v<std::remove_cvref_t<decltype(held)>, std::monostate>) {
          return nullptr;
        } else if constexpr (requires { typename std::remove_cvref_t<decltype(held)>::mapped_type; }) {
          Json object = Json::object();
          for (const auto& [key, one] : held) object[key] = one;
          return object;
        } else {
          return held;
        }
      },
      value);
}

std::string read_value(const Json& json, Type type, Value& value) {
  value = Value{};
  if (json.is_null()) {
    if (type == Type::kIntMap) value = std::map<std::string, int64_t>();
    return "";
  }
  switch (type) {
    case Type::kBool:
      return keep(flag(json), value, "true or false");
    case Type::kInt:
      return keep(whole(json), value, "a whole number");
    case Type::kNumber:
      return keep(number(json), value, "a number");
    case Type::kString:
    case Type::kChoice:
      return keep(text(json), value, "a string");
    case Type::kBoolOrChoice:
      return json.is_boolean() ? keep(flag(json), value, "")
                               : keep(text(json), value, "true, false or a string");
    case Type::kStrings:
      return keep(list(json, text), value, "a list of strings");
    case Type::kStringOrStrings:
      return json.is_string() ? keep(text(json), value, "")
                              : keep(list(json, text), value, "a string or a list of strings");
    case Type::kNumbers:
      return keep(list(json, number), value, "a list of numbers");
    case Type::kInts:
      return keep(list(json, whole), value, "a list of whole numbers");
    case Type::kIntOrInts:
      return json.is_number() ? keep(whole(json), value, "a whole number or a list of them")
                              : keep(list(json, whole), value, "a whole number or a list of them");
    case Type::kMap:
      return keep(table(json, text), value, "an object of strings");
    case Type::kIntMap:
      return keep(table(json, whole), value, "an object of whole numbers");
  }
  return "";
}

const std::vector<FixedField>& fixed_fields(const std::string& method) {
  static const Json kNone = nullptr;
  static const std::vector<FixedField> kNothing;
  static const std::vector<FixedField> kLora = {
      {"alora_invocation_tokens", kNone},
      {"arrow_config", kNone},        {"corda_config", kNone},
      {"ensure_weight_tying", false}, {"kasa_config", kNone},
      {"layer_replication", kNone},   {"lora_ga_config", kNone},
      {"megatron_config", kNone},     {"megatron_core", "megatron.core"},
      {"monteclora_config", kNone},   {"qalora_group_size", 16},
      {"use_bdlora", kNone},          {"use_qalora", false},
      {"velora_config", kNone}};
  static const std::vector<FixedField> kAdaLora = [] {
    std::vector<FixedField> fields = kLora;
    fields.insert(fields.end(), {{"use_rslora", false},
                                 {"use_dora", false},
                                 {"lora_bias", false},
                                 {"target_parameters", kNone},
                                 {"alpha_pattern", Json::object()},
                                 {"loftq_config", Json::object()},
                                 {"eva_config", kNone}});
    return fields;
  }();
  if (method == "lora") return kLora;
  if (method == "adalora") return kAdaLora;
  return kNothing;
}

bool has_transposed_flag(const std::string& method) {
  static const std::set<std::string> kMethods = {"lora", "adalora", "ia3", "vera", "oft", "boft"};
  return kMethods.contains(method);
}

bool has_lora_fields(const std::string& method) { return method == "lora" || method == "adalora"; }

std::string peft_type_of(const std::string& method) {
  std::string type = method;
  for (char& c : type) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return type;
}

std::string within(const std::string& key, const std::string& parent) {
  return key.starts_with(parent + ".") ? key.substr(parent.size() + 1) : "";
}

}  // namespace temper::trainer
