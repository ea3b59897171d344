#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

/// What a key of a recipe may hold, once read. std::monostate is "auto": an optional key left to
/// Temper. Enumerations are their names.
namespace temper::recipes {

using Value = std::variant<std::monostate, bool, int64_t, double, std::string,
                           std::vector<std::string>, std::vector<double>, std::vector<int64_t>,
                           std::map<std::string, std::string>, std::map<std::string, int64_t>>;

/// The value as TOML: `"text"`, `2e-05`, `["a", "b"]`, `{ prompt = "question" }`, `"auto"`.
/// Numbers are the shortest that read back to the same bits.
std::string to_toml(const Value& value);

/// A TOML basic string with its quotes.
std::string in_quotes(std::string_view text);

/// "a", "b", "c" with each name quoted, for messages.
std::string all_in_quotes(const std::vector<std::string>& names);

}  // namespace temper::recipes
