#include "data/formats/row_encoder.h"

#include <algorithm>

#include "data/formats/format.h"
#include "recipes/diagnostic.h"

namespace temper::data {

using recipes::LossOn;

struct RowEncoder::State {
  const Format* format;
  std::string name;
  LossOn loss_on;
  std::string kind;
  std::optional<int64_t> cut_to;
  recipes::DataSource source;
  Tokenizer tokenizer;
  std::optional<ChatTemplate> chat_template;
  std::vector<std::string_view> texts;  // the required columns that the first row has
  std::string columns;                  // those used, as the file calls them
  std::string fingerprint;
};

namespace {

std::vector<std::string> columns_of(const Row& row) {
  std::vector<std::string> names;
  for (const auto& [name, value] : row.columns.items()) names.push_back(name);
  return names;
}

/// As the file is to call them.
std::string expected_columns(const Format& format, const recipes::DataSource& source) {
  const Json no_values;
  const Columns columns{no_values, source.columns};
  std::vector<std::string> alternatives;
  for (const auto& alternative : format.required) {
    std::vector<std::string> names;
    for (const std::string_view name : alternative) names.push_back(columns.name_in_file(name));
    alternatives.push_back(join(names, " and "));
  }
  return join(alternatives, " or ");
}

void check_mapping(const recipes::DataSource& source, const Row& row) {
  std::vector<std::string> known;
  for (const Format& format : formats()) {
    for (const auto& alternative : format.required)
      known.insert(known.end(), alternative.begin(), alternative.end());
    known.insert(known.end(), format.optional.begin(), format.optional.end());
  }
  std::sort(known.begin(), known.end());
  known.erase(std::unique(known.begin(), known.end()), known.end());
  for (const auto& [ours, theirs] : source.columns) {
    if (std::find(known.begin(), known.end(), ours) == known.end()) {
      const std::string near = nearest_name(ours, known);
      throw UserError(source.path + ": columns." + ours + ": no format has a column of that name" +
                      (near.empty() ? "" : " (did you mean " + near + "?)") + "; known are " +
                      join(known));
    }
    if (!row.columns.contains(theirs)) {
      throw UserError(source.path + ": columns." + ours + " = \"" + theirs +
                      "\": the file has no such column; found " + join(columns_of(row)));
    }
  }
}

std::vector<std::string> names_for(std::string_view kind) {
  std::vector<std::string> names{"auto"};
  for (const Format& format : formats()) {
    if (serves(format, kind)) names.emplace_back(format.name);
  }
  return names;
}

std::string kinds_of(const Format& format) {
  return join({format.kinds.begin(), format.kinds.end()}, ", ");
}

const Format& named_format(const RowEncoderOptions& options, const recipes::DataSource& source,
                           const Row& row) {
  const std::string here = "data.format = \"" + options.format + "\": ";
  const Format* format = find_format(options.format);
  if (!format) throw UserError(here + "must be one of " + join(names_for(options.kind)));
  if (!serves(*format, options.kind)) {
    throw UserError(here + "belongs to objective.kind " + kinds_of(*format) + "; with \"" +
                    options.kind + "\" must be one of " + join(names_for(options.kind)));
  }
  if (!fitting(*format, {row.columns, source.columns})) {
    throw UserError(source.path + ": format " + options.format + " needs the columns " +
                    expected_columns(*format, {}) + "; found " + join(columns_of(row)) +
                    " (name yours with columns = { " + std::string(format->required[0][0]) +
                    " = \"...\" })");
  }
  return *format;
}

const Format& choose_format(const RowEncoderOptions& options, const recipes::DataSource& source,
                            const Row& row) {
  if (options.format != "auto") return named_format(options, source, row);
  std::vector<std::string> expected;
  const Format* other = nullptr;
  const Format* example = nullptr;  // for the last words
  for (const Format& format : formats()) {
    const bool fits = fitting(format, {row.columns, source.columns});
    if (!serves(format, options.kind)) {
      if (fits && !other) other = &format;
      continue;
    }
    if (fits) return format;
    expected.push_back(expected_columns(format, {}) + " (" + std::string(format.name) + ")");
    if (!example || format.required[0].size() > example->required[0].size()) example = &format;
  }
  TEMPER_CHECK(example, "a format for each kind");
  std::vector<std::string> mapping;
  for (const std::string_view name : example->required[0])
    mapping.push_back(std::string(name) + " = \"...\"");
  throw UserError(source.path + ": no data format fits the columns " + join(columns_of(row)) +
                  "; expected " + join(expected, ", or ") +
                  (other ? " for objective.kind = \"" + options.kind + "\" (these are " +
                               std::string(other->name) + ", for " + kinds_of(*other) + ")"
                         : std::string()) +
                  "; name yours with columns = { " + join(mapping) + " }");
}

/// A row without the columns that the file's first row has.
[[noreturn]] void refuse_other_columns(const Format& format, const Row& row,
                                       const recipes::DataSource& source) {
  const auto all = formats();
  const auto other = std::find_if(all.begin(), all.end(), [&](const Format& each) {
    return fitting(each, {row.columns, source.columns}) != nullptr;
  });
  throw UserError(row.where() + ": has the columns " + join(columns_of(row)) +
                  (other == all.end() ? "" : " (" + std::string(other->name) + ")") +
                  ", but the file's first row is " + std::string(format.name) + ": must have " +
                  expected_columns(format, source) + "; one file, one format");
}

LossOn choose_loss(LossOn wanted, const Format& format) {
  if (wanted == LossOn::kAuto) return format.loss_on[0];
  if (std::find(format.loss_on.begin(), format.loss_on.end(), wanted) != format.loss_on.end())
    return wanted;
  std::vector<std::string> allowed{"auto"};
  for (LossOn each : format.loss_on) allowed.emplace_back(loss_on_name(each));
  throw UserError("data.loss_on = \"" + std::string(loss_on_name(wanted)) +
                  "\": with rows of the format " + std::string(format.name) + " must be one of " +
                  join(allowed));
}

/// Unambiguous: each part with its length.
std::string fingerprint_of(const std::vector<std::string>& parts) {
  std::string out = "row-encoder-3";
  for (const std::string& part : parts) out += ";" + std::to_string(part.size()) + ":" + part;
  return out;
}

}  // namespace

RowEncoderOptions row_encoder_options(const recipes::Recipe& recipe) {
  using recipes::OnLongRow;
  const bool cuts = recipe.data.on_long_row == OnLongRow::kAuto ||
                    recipe.data.on_long_row == OnLongRow::kTruncate;
  return {.format = recipe.data.format,
          .loss_on = recipe.data.loss_on,
          .kind = recipe.objective.kind,
          .cut_to = cuts ? std::optional(recipe.data.max_length) : std::nullopt};
}

RowEncoder::RowEncoder(std::shared_ptr<const State> state) : state_(std::move(state)) {}

RowEncoder RowEncoder::make(const RowEncoderOptions& options, const recipes::DataSource& source,
                            const Row& first_row, const Tokenizer& tokenizer,
                            std::optional<ChatTemplate> chat_template) {
  check_mapping(source, first_row);
  const Format& format = choose_format(options, source, first_row);
  const LossOn loss_on = choose_loss(options.loss_on, format);
  const Columns columns{first_row.columns, source.columns};
  std::vector<std::string> used;
  for (std::string_view name : *fitting(format, columns))
    used.push_back(columns.name_in_file(name));
  for (std::string_view name : format.optional) {
    if (first_row.columns.contains(columns.name_in_file(name)))
      used.push_back(columns.name_in_file(name));
  }
  std::vector<std::string> parts{std::string(format.name), std::string(loss_on_name(loss_on)),
                                 options.kind, tokenizer.fingerprint(),
                                 chat_template ? chat_template->fingerprint() : ""};
  for (const auto& [ours, theirs] : source.columns) {
    parts.push_back(ours);
    parts.push_back(theirs);
  }
  const std::optional<int64_t> cut_to = format.whole_texts ? options.cut_to : std::nullopt;
  if (cut_to) {
    parts.push_back(std::to_string(*cut_to) + (tokenizer.truncates_from_left() ? " last" : ""));
  }
  return RowEncoder(std::make_shared<const State>(State{.format = &format,
                                                        .name = std::string(format.name),
                                                        .loss_on = loss_on,
                                                        .kind = options.kind,
                                                        .cut_to = cut_to,
                                                        .source = source,
                                                        .tokenizer = tokenizer,
                                                        .chat_template = std::move(chat_template),
                                                        .texts = *fitting(format, columns),
                                                        .columns = join(used),
                                                        .fingerprint = fingerprint_of(parts)}));
}

TokenizedRow RowEncoder::encode(const Row& row) const {
  const FormatContext context{state_->tokenizer,
                              state_->chat_template ? &*state_->chat_template : nullptr,
                              state_->loss_on, state_->kind, state_->cut_to};
  const Columns columns{row.columns, state_->source.columns};
  if (!fitting(*state_->format, columns))
    refuse_other_columns(*state_->format, row, state_->source);
  TokenizedRow tokenized;
  try {
    tokenized = state_->format->encode(context, columns);
  } catch (const UserError& error) {
    throw UserError(row.where() + ": " + error.what());
  }
  if (!rules().needs_targets) return tokenized;
  for (const Example& document : tokenized.documents) {
    // The first token of a document is never a target.
    if (document.supervised.empty() ||
        std::none_of(document.supervised.begin() + 1, document.supervised.end(),
                     [](uint8_t counted) { return counted != 0; })) {
      throw UserError(row.where() + ": no token of this row is trained on (loss on " +
                      std::string(loss_on_name(state_->loss_on)) + ", " +
                      std::to_string(document.ids.size()) + " tokens)");
    }
  }
  return tokenized;
}

RowRules RowEncoder::rules() const {
  using recipes::OnLongRow;
  const bool samples = state_->name == "prompt";
  const bool drops = samples || state_->kind == "reward";
  return {.on_long_row = state_->name == "text" ? OnLongRow::kSplit
                         : drops                ? OnLongRow::kDrop
                                                : OnLongRow::kTruncate,
          .needs_targets = !samples && !state_->format->whole_texts,
          .unpaired = state_->format->documents > 1 && state_->kind == "kto"};
}

const std::string& RowEncoder::format() const { return state_->name; }

std::string_view RowEncoder::document_name(size_t document, size_t documents) const {
  return state_->texts[state_->texts.size() - documents + document];
}

const std::string& RowEncoder::fingerprint() const { return state_->fingerprint; }

std::string RowEncoder::statement() const {
  std::string line =
      state_->source.path + ": " + state_->name + " (columns " + state_->columns + ")";
  line += state_->name == "classification"         ? ", whole texts are classified"
          : state_->format->whole_texts            ? ", whole texts are compared"
          : !rules().needs_targets                 ? ", completions are sampled"
          : state_->kind == "reward"               ? ", whole texts are scored"
          : state_->loss_on == LossOn::kAssistant  ? ", loss on assistant turns"
          : state_->loss_on == LossOn::kCompletion ? ", loss on completions"
                                                   : ", loss on all tokens";
  if (state_->name == "alpaca")
    line += state_->chat_template ? ", as chats" : ", as text for want of a chat template";
  if (rules().unpaired) line += ", each pair as two rows";
  if (rules().needs_targets && state_->format->name != "messages" && !state_->tokenizer.eos_id())
    line += "; no end token is added, for the tokenizer names none";
  return line;
}

}  // namespace temper::data
