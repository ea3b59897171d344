#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "data/formats/row_encoder.h"
#include "data/hub/repository.h"
#include "data/readers/reader.h"
#include "data/shards/token_shard.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "launch/inspect.h"
#include "recipes/parse.h"

namespace temper::launch {

namespace fs = std::filesystem;
using data::Json;

namespace {

/// The row as runs of tokens that are all trained on, or all not. Decoded as a whole and then cut,
/// since decoders treat the beginning of a text in their own way.
Json runs_of(const data::Example& example, const data::Tokenizer& tokenizer) {
  // The first token of a document is never a target.
  const auto trained = [&](size_t i) { return i > 0 && example.supervised[i] != 0; };
  Json runs = Json::array();
  size_t text_before = 0;
  for (size_t begin = 0; begin < example.ids.size();) {
    size_t end = begin + 1;
    while (end < example.ids.size() && trained(end) == trained(begin)) ++end;
    const std::string text =
        tokenizer.decode({example.ids.data(), end}, /*skip_special_tokens=*/false);
    runs.push_back({{"text", text.substr(std::min(text_before, text.size()))},
                    {"trained", trained(begin)},
                    {"tokens", end - begin}});
    text_before = text.size();
    begin = end;
  }
  return runs;
}

int64_t trained_tokens(const data::Example& example) {
  int64_t count = 0;
  for (size_t i = 1; i < example.supervised.size(); ++i) count += example.supervised[i];
  return count;
}

constexpr std::array<const char*, 2> kNamesOfPair = {"chosen", "rejected"};

/// A document, none longer than max_length.
Json document_of(data::Example document, int64_t max_length, const data::Tokenizer& tokenizer) {
  const auto tokens = static_cast<int64_t>(document.ids.size());
  const int64_t trained = trained_tokens(document);
  if (tokens > max_length) {
    document.ids.resize(static_cast<size_t>(max_length));
    document.supervised.resize(static_cast<size_t>(max_length));
  }
  return {{"tokens", tokens},
          {"trained_tokens", trained},
          {"shown_tokens", document.ids.size()},
          {"runs", runs_of(document, tokenizer)}};
}

Json rows_of(const recipes::Recipe& recipe, const recipes::DataSource& source, int64_t rows,
             const data::Tokenizer& tokenizer,
             const std::optional<data::ChatTemplate>& chat_template) {
  Json shown = {{"path", source.path}, {"rows", Json::array()}};
  std::optional<data::RowEncoder> encoder;
  const auto reader = data::open_reader(data::data_files(source.path).front());
  data::Row row;
  for (int64_t n = 0; n < rows && reader->next(row); ++n) {
    if (!encoder) {
      encoder = data::RowEncoder::make({.format = recipe.data.format,
                                        .loss_on = recipe.data.loss_on,
                                        .kind = recipe.objective.kind},
                                       source, row, tokenizer, chat_template);
      shown["statement"] = encoder->statement();
    }
    const data::TokenizedRow tokens = encoder->encode(row);
    Json entry = {{"where", row.where()}};
    if (tokens.documents.size() == 1) {
      entry.update(document_of(tokens.documents[0], recipe.data.max_length, tokenizer));
      if (!tokens.columns.empty()) entry["columns"] = Json::parse(tokens.columns);
    } else {
      for (size_t d = 0; d < tokens.documents.size(); ++d) {
        Json document = document_of(tokens.documents[d], recipe.data.max_length, tokenizer);
        document["name"] = kNamesOfPair.at(d);
        entry["documents"].push_back(std::move(document));
      }
    }
    shown["rows"].push_back(std::move(entry));
  }
  return shown;
}

}  // namespace

Json inspect_recipe(const fs::path& file, int64_t rows) {
  const auto recipe = recipes::parse(file, {}, {.purpose = recipes::Purpose::kPrepare});
  const fs::path model = data::model_directory(recipe.model.path, "model.path", recipe.model.download);
  const auto tokenizer = data::Tokenizer::load(model, recipe.model.add_tokens);
  const auto chat_template = data::ChatTemplate::load(model);
  Json report = {{"kind", "recipe"},
                 {"path", file.string()},
                 {"model", model.string()},
                 {"sources", Json::array()}};
  for (const auto* sources : {&recipe.data.train, &recipe.data.eval}) {
    for (const recipes::DataSource& source : *sources) {
      Json shown = rows_of(recipe, source, rows, tokenizer, chat_template);
      shown["set"] = sources == &recipe.data.train ? "train" : "eval";
      report["sources"].push_back(std::move(shown));
    }
  }
  return report;
}

Json inspect_shard(const fs::path& file, int64_t rows) {
  const data::TokenShard shard(file);
  const int64_t tokens = shard.tokens();
  int64_t supervised = 0;
  for (int64_t i = 0; i < tokens; ++i) supervised += shard.supervised(i);
  Json report = {{"kind", "token shard"},    {"path", file.string()},
                 {"rows", shard.rows()},     {"tokens", tokens},
                 {"supervised", supervised}, {"first_rows", Json::array()}};
  for (int64_t row = 0; row < std::min(rows, shard.rows()); ++row) {
    Json entry = {{"row_number", shard.row_number(row)}};
    const auto ends = shard.document_ends(row);
    for (size_t d = 0; d + 1 < ends.size(); ++d) {
      const data::Example example = shard.tokens(ends[d], ends[d + 1] - ends[d]);
      Json document = {{"ids", example.ids}, {"supervised", example.supervised}};
      if (ends.size() == 2) {
        entry.update(document);
      } else {
        entry["documents"].push_back(std::move(document));
      }
    }
    if (!shard.columns(row).empty()) entry["columns"] = std::string(shard.columns(row));
    report["first_rows"].push_back(std::move(entry));
  }
  return report;
}

}  // namespace temper::launch
