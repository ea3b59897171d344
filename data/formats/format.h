#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/formats/example.h"
#include "data/io/json.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "recipes/recipe.h"

/// Row formats: how a row's columns become token ids and a loss mask. One row of the table a format
/// (formats.cpp), one file each.
namespace temper::data {

/// A row's values by our names; `names` says what a column is called in the file where that
/// differs.
struct Columns {
  const Json& values;
  const std::map<std::string, std::string>& names;

  /// Null when the row has no such column or its value is null.
  const Json* find(std::string_view name) const;
  /// The column's name in the file.
  std::string name_in_file(std::string_view name) const;
  /// A string. Throws UserError naming the column and what it holds.
  const std::string& text(std::string_view name) const;
};

struct FormatContext {
  const Tokenizer& tokenizer;
  const ChatTemplate* chat_template;  // null: the model has none
  recipes::LossOn loss_on;            // resolved: never kAuto
};

struct Format {
  std::string_view name;
  /// Alternatives of required columns: a row fits when it has all of one of them.
  std::vector<std::vector<std::string_view>> required;
  std::vector<std::string_view> optional;
  /// What loss_on may be; the first is what "auto" means.
  std::vector<recipes::LossOn> loss_on;
  /// Throws UserError (what is wrong, without the place) for a row that cannot be trained on.
  Example (*encode)(const FormatContext& context, const Columns& columns);
  std::string_view sentence;
};

/// In the order in which "auto" tries them.
std::span<const Format> formats();
/// Null for a name that is none.
const Format* find_format(std::string_view name);

/// The formats' encoders.
Example encode_text(const FormatContext& context, const Columns& columns);
Example encode_prompt_completion(const FormatContext& context, const Columns& columns);
Example encode_messages(const FormatContext& context, const Columns& columns);

/// `text` with the tokenizer's end-of-sequence token at its end, unless it ends in it already or
/// the tokenizer puts one there or has none.
std::string with_end_token(const Tokenizer& tokenizer, const std::string& text);

std::string_view loss_on_name(recipes::LossOn loss_on);

}  // namespace temper::data
