#pragma once

#include <memory>
#include <optional>
#include <string>

#include <toml++/toml.h>

#include "recipes/schema.h"
#include "recipes/value.h"

/// Between toml++'s nodes and our values; included by parse.cpp alone, since toml++ takes its time
/// to compile.
namespace temper::recipes {

/// The node in a message: on one line, and not too long.
std::string shown(const toml::node& node);

/// The node as a value of the key's type, or unset.
std::optional<Value> value_of(const KeyInfo& key, const toml::node& node);

/// `text` as one TOML value, or null.
std::unique_ptr<toml::node> toml_value(const std::string& text);

/// The value of an override by the key's type: a string needs no quotes. Text that is no TOML stays
/// a string, so that the check of its type says what is wrong.
std::unique_ptr<toml::node> override_value(const KeyInfo& key, const std::string& text);

}  // namespace temper::recipes
