// Texts that are scored or compared whole: rows of classification, pairs and triplets. Ids are those
// of transformers 5.23 (text classification) and sentence-transformers 6.2: each text, or two as one
// input, with the tokenizer's special tokens, and cut by truncation = "longest_first".
#include <algorithm>
#include <cmath>
#include <utility>

#include "data/formats/format.h"
#include "recipes/diagnostic.h"

namespace temper::data {
namespace {

const std::string& text_of(const Columns& columns, std::string_view name) {
  const std::string& text = columns.text(name);
  if (text.empty()) throw UserError(columns.name_in_file(name) + " is empty");
  return text;
}

/// Adds a document: the text, or both texts as one input.
void add_input(TokenizedRow& row, const FormatContext& context, const std::string& text,
               const std::string* second = nullptr) {
  const Tokenizer& tokenizer = context.tokenizer;
  std::vector<int32_t> ids =
      second ? tokenizer.encode_pair(text, *second).ids : tokenizer.encode(text);
  if (context.cut_to && std::ssize(ids) > *context.cut_to) {
    const Truncation cut{.max_length = *context.cut_to,
                         .from_left = tokenizer.truncates_from_left()};
    row.cut += std::ssize(ids);
    ids = second ? tokenizer.encode_pair(text, *second, true, cut).ids
                 : tokenizer.encode_with_offsets(text, true, cut).ids;
    row.cut -= std::ssize(ids);
  }
  const size_t tokens = ids.size();
  row.documents.push_back({.ids = std::move(ids), .supervised = std::vector<uint8_t>(tokens, 0)});
}

bool is_class_or_number(const Json& value) {
  return value.is_boolean() || (value.is_number() && std::isfinite(value.get<double>())) ||
         (value.is_string() && !value.get_ref<const std::string&>().empty());
}

/// The label, or the score, under the name "label"; "" for a row that has neither.
std::string label_columns(const Columns& columns) {
  const Json* label = columns.find("label");
  const Json* score = columns.find("score");
  const std::string name = columns.name_in_file(score && !label ? "score" : "label");
  if (label && score) {
    throw UserError(name + " and " + columns.name_in_file("score") +
                    ": a row has one of them, not both");
  }
  if (!label) label = score;
  if (!label) return "";
  const bool fits =
      label->is_array()
          ? std::all_of(label->begin(), label->end(), is_class_or_number) &&
                std::all_of(label->begin(), label->end(),
                            [&](const Json& each) { return each.is_string() == label->front().is_string(); })
          : is_class_or_number(*label);
  if (!fits) {
    throw UserError(name + " = " + label->dump() +
                    ": must be a class (a name or a number), a number, or a list of them");
  }
  return Json{{"label", *label}}.dump();
}

}  // namespace

TokenizedRow encode_classification(const FormatContext& context, const Columns& columns) {
  TokenizedRow row{.documents = {}, .columns = label_columns(columns)};
  if (row.columns.empty()) {
    throw UserError(columns.name_in_file("label") +
                    " is missing or null: must be a class (a name or a number) or a number");
  }
  const std::string* second = columns.find("text_pair") ? &text_of(columns, "text_pair") : nullptr;
  add_input(row, context, text_of(columns, "text"), second);
  return row;
}

TokenizedRow encode_pairs(const FormatContext& context, const Columns& columns) {
  // What "auto" would take for a pair and silently learn without its negatives.
  for (const char* negative : {"negative", "negative_1"}) {
    if (!columns.find(negative)) continue;
    throw UserError("has a column " + columns.name_in_file(negative) +
                    ", which a pair has not: with columns anchor and positive, and columns = { "
                    "negative = \"" +
                    columns.name_in_file(negative) + "\" }, the rows are triplets");
  }
  const auto& names = *fitting(*find_format("pairs"), columns);
  const std::string& first = text_of(columns, names[0]);
  const std::string& second = text_of(columns, names[1]);
  TokenizedRow row{.documents = {}, .columns = label_columns(columns)};
  if (context.kind == "cross_encoder") {
    add_input(row, context, first, &second);
  } else {
    add_input(row, context, first);
    add_input(row, context, second);
  }
  return row;
}

TokenizedRow encode_triplets(const FormatContext& context, const Columns& columns) {
  const auto& names = *fitting(*find_format("triplets"), columns);
  const std::string& anchor = text_of(columns, names[0]);
  TokenizedRow row{.documents = {}, .columns = label_columns(columns)};
  const bool together = context.kind == "cross_encoder";
  if (!together) add_input(row, context, anchor);
  for (const std::string_view name : {names[1], names[2]}) {
    const std::string& other = text_of(columns, name);
    if (together) {
      add_input(row, context, anchor, &other);
    } else {
      add_input(row, context, other);
    }
  }
  return row;
}

}  // namespace temper::data
