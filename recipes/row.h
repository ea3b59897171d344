#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/enum_names.h"
#include "recipes/schema.h"

/// How schema.cpp makes a row of the registry from a member of recipe.h: the key's name, type and
/// accessors come from the member, the rest from what is said about it.
namespace temper::recipes {

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class T>
Value to_value(const T& member) {
  if constexpr (IsOptional<T>::value) {
    return member ? to_value(*member) : Value{};
  } else if constexpr (std::is_same_v<T, Deterministic>) {
    if (member == Deterministic::kLayout) return std::string(name_of(member));
    return member == Deterministic::kTrue;
  } else if constexpr (std::is_enum_v<T>) {
    return std::string(name_of(member));
  } else {
    return member;
  }
}

template <class T>
void assign(T& member, const Value& value) {
  if constexpr (IsOptional<T>::value) {
    if (std::holds_alternative<std::monostate>(value)) {
      member.reset();
    } else {
      assign(member.emplace(), value);
    }
  } else if constexpr (std::is_same_v<T, Deterministic>) {
    const bool* flag = std::get_if<bool>(&value);
    member = !flag ? Deterministic::kLayout : *flag ? Deterministic::kTrue : Deterministic::kFalse;
  } else if constexpr (std::is_enum_v<T>) {
    const auto& names = kNames<T>;
    const auto found = std::find(names.begin(), names.end(), std::get<std::string>(value));
    TEMPER_CHECK(found != names.end(), "a value is checked before it is stored");
    member = static_cast<T>(found - names.begin());
  } else {
    member = std::get<T>(value);
  }
}

template <class T>
constexpr Type type_of() {
  if constexpr (IsOptional<T>::value) {
    return type_of<typename T::value_type>();
  } else if constexpr (std::is_same_v<T, Deterministic>) {
    return Type::kBoolOrChoice;
  } else if constexpr (std::is_enum_v<T>) {
    return Type::kChoice;
  } else if constexpr (std::is_same_v<T, bool>) {
    return Type::kBool;
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return Type::kInt;
  } else if constexpr (std::is_same_v<T, double>) {
    return Type::kNumber;
  } else if constexpr (std::is_same_v<T, std::string>) {
    return Type::kString;
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    return Type::kStrings;
  } else if constexpr (std::is_same_v<T, std::vector<double>>) {
    return Type::kNumbers;
  } else {
    static_assert(std::is_same_v<T, std::map<std::string, std::string>>);
    return Type::kMap;
  }
}

struct About {
  std::string meaning;
  std::string unit{};
  Range range{};
  std::vector<std::string> choices{};
  std::vector<Value> works{};
  bool not_empty = false;
};

constexpr Range at_least(double low) { return {.low = low}; }
constexpr Range above(double low) { return {.low = low, .low_open = true}; }
constexpr Range between(double low, double high) { return {.low = low, .high = high}; }
constexpr Range from_to_below(double low, double high) {
  return {.low = low, .high = high, .high_open = true};
}
constexpr Range above_up_to(double low, double high) {
  return {.low = low, .high = high, .low_open = true};
}

// `member` is a lambda without captures from the owner to the member.
template <class Owner, class Member>
KeyOf<Owner> make_row(std::string name, Member, About about) {
  using T = std::remove_cvref_t<decltype(Member{}(std::declval<Owner&>()))>;
  // A member that would be a C++ keyword ends in an underscore; the key does not.
  if (const auto keyword = name.find("_."); keyword != std::string::npos) name.erase(keyword, 1);
  KeyOf<Owner> key;
  key.name = std::move(name);
  key.type = type_of<T>();
  key.optional = IsOptional<T>::value;
  key.choices = std::move(about.choices);
  if constexpr (std::is_same_v<T, Deterministic>) {
    key.choices = {"layout"};
  } else if constexpr (std::is_enum_v<T>) {
    key.choices.assign(kNames<T>.begin(), kNames<T>.end());
  } else if (key.type == Type::kString && !key.choices.empty()) {
    key.type = Type::kChoice;
  }
  key.range = about.range;
  key.unit = std::move(about.unit);
  key.not_empty = about.not_empty;
  key.works = std::move(about.works);
  key.meaning = std::move(about.meaning);
  key.get = [](const Owner& owner) { return to_value(Member{}(owner)); };
  key.set = [](Owner& owner, const Value& value) { assign(Member{}(owner), value); };
  return key;
}

}  // namespace temper::recipes
