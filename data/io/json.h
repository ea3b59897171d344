#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

/// One JSON value type for the whole program: keys keep their order (templates and exported files depend on it).
namespace temper::data {

using Json = nlohmann::ordered_json;

/// Parses a whole file (config.json, tokenizer_config.json, ...). Throws UserError naming file, line and what was
/// expected for a missing, unreadable, non-UTF-8 or malformed file.
Json read_json(const std::filesystem::path& path);

/// Parses one JSON text quickly (simdjson). Throws UserError whose line begins with `where` ("train.jsonl:17").
Json parse_json(std::string_view text, const std::string& where);

/// Serialises with two-space indents and a final newline, UTF-8 as it is.
std::string dump_json(const Json& value);

}  // namespace temper::data
