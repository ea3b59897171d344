#pragma once

#include <cstdint>
#include <map>
#include <optional>
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
  /// Likewise, and "" for a column that is absent or null.
  std::string text_or_empty(std::string_view name) const;
};

struct FormatContext {
  const Tokenizer& tokenizer;
  const ChatTemplate* chat_template;  // null: the model has none
  recipes::LossOn loss_on;            // resolved: never kAuto
  std::string_view kind;              // objective.kind
  std::optional<int64_t> cut_to;      // tokens; of formats of whole texts alone
};

struct Format {
  std::string_view name;
  /// Alternatives of required columns: a row fits when it has all of one of them.
  std::vector<std::vector<std::string_view>> required;
  std::vector<std::string_view> optional;
  /// What loss_on may be; the first is what "auto" means.
  std::vector<recipes::LossOn> loss_on;
  /// The kinds of objectives that learn from such rows.
  std::vector<std::string_view> kinds;
  int documents;  // of a row, at most
  /// Texts that are taken whole: none of their tokens is supervised, and the encoder itself cuts
  /// them, as the reference tokenizers do, which leave the special tokens of a text where they are.
  bool whole_texts = false;
  /// Throws UserError (what is wrong, without the place) for a row that cannot be trained on.
  TokenizedRow (*encode)(const FormatContext& context, const Columns& columns);
  std::string_view sentence;
};

/// In the order in which "auto" tries them.
std::span<const Format> formats();
bool serves(const Format& format, std::string_view kind);
/// The first alternative of the format's required columns that the row has; null when it has none.
const std::vector<std::string_view>* fitting(const Format& format, const Columns& columns);
/// Null for a name that is none.
const Format* find_format(std::string_view name);

/// The formats' encoders.
TokenizedRow encode_text(const FormatContext& context, const Columns& columns);
/// An instruction with its input, and the output: one exchange of a chat where the model has a
/// template, else text, each part on a line.
TokenizedRow encode_alpaca(const FormatContext& context, const Columns& columns);
TokenizedRow encode_prompt_completion(const FormatContext& context, const Columns& columns);
TokenizedRow encode_messages(const FormatContext& context, const Columns& columns);
/// Documents: chosen, rejected. Columns: the margin, of reward; of kto, for which a pair is two
/// rows, a line for each document.
TokenizedRow encode_preference(const FormatContext& context, const Columns& columns);
/// Columns: kColumnsOfChosen or kColumnsOfRejected.
TokenizedRow encode_unpaired_preference(const FormatContext& context, const Columns& columns);
/// Columns: all of the row's, and under "prompt" the text of the prompt.
TokenizedRow encode_prompt(const FormatContext& context, const Columns& columns);
/// One document: the text, with a text_pair where the row has one. Columns: the label.
TokenizedRow encode_classification(const FormatContext& context, const Columns& columns);
/// Two documents; of cross_encoder one, of both texts. Columns: the label, if there is one.
TokenizedRow encode_pairs(const FormatContext& context, const Columns& columns);
/// Three documents; of cross_encoder two, each of the first text with one of the others.
TokenizedRow encode_triplets(const FormatContext& context, const Columns& columns);

/// What is kept of a good and of a bad completion.
inline constexpr const char* kColumnsOfChosen = R"({"label":true})";
inline constexpr const char* kColumnsOfRejected = R"({"label":false})";

/// `text` with the tokenizer's end-of-sequence token at its end, unless it ends in it already or
/// the tokenizer puts one there or has none.
std::string with_end_token(const Tokenizer& tokenizer, const std::string& text);

std::string_view loss_on_name(recipes::LossOn loss_on);

}  // namespace temper::data
