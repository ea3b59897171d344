#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/enum_names.h"
#include "recipes/schema.h"

/// How schema.cpp, peft_rows.cpp and objective_rows.cpp make a row of the registry from a member of recipe.h: the key's
/// name, type and accessors come from the member, the rest from what is said about it.
namespace temper::recipes {

template <class T>
struct IsOptional : std::false_type {};
template <class T>
struct IsOptional<std::optional<T>> : std::true_type {};

template <class T>
struct IsVariant : std::false_type {};
template <class... T>
struct IsVariant<std::variant<T...>> : std::true_type {};

template <class Held, class Variant>
struct IsAlternative;
template <class Held, class... T>
struct IsAlternative<Held, std::variant<T...>>
    : std::bool_constant<(std::is_same_v<Held, T> || ...)> {};

template <class T>
Value to_value(const T& member) {
  if constexpr (IsOptional<T>::value) {
    return member ? to_value(*member) : Value{};
  } else if constexpr (IsVariant<T>::value) {
    return std::visit([](const auto& held) { return Value{held}; }, member);
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
  } else if constexpr (IsVariant<T>::value) {
    std::visit(
        [&](const auto& held) {
          using Held = std::remove_cvref_t<decltype(held)>;
          if constexpr (IsAlternative<Held, T>::value) {
            member = held;
          } else {
            TEMPER_CHECK(false, "a value is checked before it is stored");
          }
        },
        value);
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
  } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
    return Type::kInts;
  } else if constexpr (std::is_same_v<T, NamesOrPattern>) {
    return Type::kStringOrStrings;
  } else if constexpr (std::is_same_v<T, BoolOrWord>) {
    return Type::kBoolOrChoice;
  } else if constexpr (std::is_same_v<T, IntOrInts>) {
    return Type::kIntOrInts;
  } else if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
    return Type::kMap;
  } else {
    static_assert(std::is_same_v<T, std::map<std::string, int64_t>>);
    return Type::kIntMap;
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
constexpr Range above_and_below(double low, double high) {
  return {.low = low, .high = high, .low_open = true, .high_open = true};
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

// A row of the recipe's keys, of source_rows() or reward_rows(): the member, then a designated About:
// ROW(run.seed, .meaning = "...", .range = at_least(0)).
#define ROW(member, ...) NAMED_ROW(#member, member, __VA_ARGS__)
#define NAMED_ROW(name, member, ...)   \
  ::temper::recipes::make_row<Recipe>( \
      name, [](auto& owner) -> auto& { return owner.member; }, About{__VA_ARGS__})
#define SOURCE_ROW(member, ...)            \
  ::temper::recipes::make_row<DataSource>( \
      #member, [](auto& owner) -> auto& { return owner.member; }, About{__VA_ARGS__})
#define REWARD_ROW(member, ...)        \
  ::temper::recipes::make_row<Reward>( \
      #member, [](auto& owner) -> auto& { return owner.member; }, About{__VA_ARGS__})

// The rows of [peft] and [objective]; in keys() they follow those of [model] and [data].
std::vector<Key> peft_rows();
std::vector<Key> objective_rows();
std::vector<RewardKey> reward_rows();

}  // namespace temper::recipes
