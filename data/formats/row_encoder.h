#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "data/formats/example.h"
#include "data/readers/row.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "recipes/recipe.h"

namespace temper::data {

struct RowEncoderOptions {
  std::string format = "auto";  // a name of the table in formats.cpp, or "auto"
  recipes::LossOn loss_on = recipes::LossOn::kAuto;
  std::string kind = "sft";  // objective.kind
  std::optional<int64_t> cut_to{};  // tokens to which rows of whole texts are cut; unset: never
};

/// As a recipe says.
RowEncoderOptions row_encoder_options(const recipes::Recipe& recipe);

/// What a data set does with the rows of a format.
struct RowRules {
  recipes::OnLongRow on_long_row = recipes::OnLongRow::kTruncate;  // what "auto" means
  bool needs_targets = true;  // a document without a supervised token is a bad row
  bool unpaired = false;      // each document is a row of its own, with its line of the columns
};

/// Turns the rows of one source into tokens:
///
///     const RowEncoder encoder = RowEncoder::make({.format = "auto", .kind = "dpo"}, source,
///     first_row, tokenizer, ChatTemplate::load(model)); log(encoder.statement());
///     TokenizedRow tokens = encoder.encode(row);
///
/// Immutable; encode() may be called from several threads. Nothing is cut to a length here, but
/// texts that are taken whole (classification, pairs, triplets), whose special tokens stay.
class RowEncoder {
 public:
  /// The columns of the source's first row decide what "auto" means among the formats of the kind.
  /// Throws UserError naming the columns found and expected when none fits, or the format of
  /// another kind that they fit, for a mapping to a column that is absent, and for a loss_on that
  /// the format does not have.
  static RowEncoder make(const RowEncoderOptions& options, const recipes::DataSource& source,
                         const Row& first_row, const Tokenizer& tokenizer,
                         std::optional<ChatTemplate> chat_template);

  /// Throws UserError "file:line: what" for a row that cannot be trained on: a wrong type, an empty
  /// text, no supervised token.
  TokenizedRow encode(const Row& row) const;

  /// The format's name, never "auto".
  const std::string& format() const;
  RowRules rules() const;
  /// Of a row of several documents: the column it is from, by our name ("chosen", "positive").
  std::string_view document_name(size_t document, size_t documents) const;
  /// Everything that decides ids and masks: part of the token cache's key.
  const std::string& fingerprint() const;
  /// "train.jsonl: messages (columns messages), loss on assistant turns"
  std::string statement() const;

 private:
  struct State;
  explicit RowEncoder(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace temper::data
