#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "data/io/json.h"

/// What the readers of tokenizer.json's components share: typed fields and the choice by "type",
/// with errors that say file, component, field and what would be right.
namespace temper::data {

/// One component of the file: its value and its place ("models/x/tokenizer.json:
/// pre_tokenizer[1]").
struct Component {
  const Json& value;
  std::string where;

  std::string type() const;
  bool flag(const char* name) const;
  bool flag(const char* name, bool otherwise) const;
  int64_t integer(const char* name) const;
  std::string text(const char* name) const;
  /// "" where it is absent or null.
  std::string text_or_empty(const char* name) const;
  /// The one character of a text field.
  uint32_t character(const char* name) const;
  /// The place in the list of a text field's value.
  size_t choice(const char* name, std::initializer_list<const char*> values) const;
  const Json& field(const char* name) const;
  /// The elements of an array field, each a component of its own.
  std::vector<Component> children(const char* name) const;

  [[noreturn]] void fail(const std::string& what) const;
};

/// One row of a table of component types.
template <typename Built>
struct Builder {
  const char* type;
  Built (*build)(const Component&);
};

/// Throws UserError for a type without a row, listing the types that exist.
[[noreturn]] void fail_unsupported(const Component& component, std::vector<std::string> known);

template <typename Built>
Built build_from(std::span<const Builder<Built>> table, const Component& component) {
  const std::string type = component.type();
  std::vector<std::string> known;
  for (const Builder<Built>& row : table) {
    if (type == row.type) return row.build(component);
    known.push_back(row.type);
  }
  fail_unsupported(component, std::move(known));
}

}  // namespace temper::data
