#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "data/formats/row_encoder.h"
#include "data/hub/repository.h"
#include "data/shards/first_rows.h"
#include "data/shards/token_shard.h"
#include "data/text/chat_template.h"
#include "data/text/tokenizer.h"
#include "launch/inspect.h"
#include "launch/length_report.h"
#include "launch/source.h"
#include "recipes/parse.h"
#include "recipes/resolve.h"

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

Json row_of(const data::TokenizedRow& tokens, const data::Row& row,
            const data::RowEncoder& encoder, int64_t max_length,
            const data::Tokenizer& tokenizer) {
  Json entry = {{"where", row.where()}};
  const size_t documents = tokens.documents.size();
  for (size_t d = 0; d < documents; ++d) {
    Json document = document_of(tokens.documents[d], max_length, tokenizer);
    if (documents == 1) {
      entry.update(document);
    } else {
      document["name"] = encoder.document_name(d, documents);
      entry["documents"].push_back(std::move(document));
    }
  }
  if (tokens.cut > 0) entry["tokens_cut"] = tokens.cut;
  // Of a pair that becomes two rows there is a line for each.
  if (!tokens.columns.empty() && !encoder.rules().unpaired)
    entry["columns"] = Json::parse(tokens.columns);
  return entry;
}

/// The first rows of a source as they are trained on, and of as many as are checked before training
/// what becomes of them.
Json source_report(const recipes::Recipe& recipe, const recipes::DataSource& source, int64_t rows,
                   const data::Tokenizer& tokenizer,
                   const std::optional<data::ChatTemplate>& chat_template) {
  Json report = {{"path", source.path}, {"rows", Json::array()}};
  std::optional<data::RowEncoder> encoder;
  const data::EncoderFactory factory = [&](const recipes::DataSource& of, const data::Row& first) {
    encoder = data::RowEncoder::make(data::row_encoder_options(recipe), of, first, tokenizer,
                                     chat_template);
    return data::source_encoder(*encoder);
  };
  data::PrepareReport counts;
  std::vector<int32_t> lengths;
  data::look_at_first_rows(
      source, factory, data::settings_of(recipe.data),
      [&](const data::Row& row, const data::TokenizedRow& tokens, const std::string& wrong,
          const std::vector<data::SelectedPiece>& pieces) {
        for (const data::SelectedPiece& taken : pieces) lengths.push_back(taken.piece.length);
        if (std::ssize(report["rows"]) == rows) return;
        report["rows"].push_back(wrong.empty()
                                     ? row_of(tokens, row, *encoder, recipe.data.max_length, tokenizer)
                                     : Json({{"where", row.where()}, {"bad", wrong}}));
      },
      counts);
  report["statement"] = counts.statements.front();
  report["first_rows"] = {{"read", counts.rows},
                          {"taken", lengths.size()},
                          {"tokens", counts.tokens},
                          {"supervised", counts.supervised},
                          {"long_rows", counts.long_rows},
                          {"split", counts.rows_split},
                          {"tokens_cut", counts.tokens_cut},
                          {"dropped", counts.rows_dropped},
                          {"bad_rows", counts.bad_rows},
                          {"first_bad", counts.first_bad}};
  report["lengths"] = length_report(lengths);
  // Rows whose documents are compared are neither packed nor padded.
  if (recipe.objective.kind == "sft") {
    report["fill"] = fill_report(lengths, recipe.data, recipe.batch.micro);
  }
  return report;
}

}  // namespace

Json inspect_recipe(const fs::path& file, int64_t rows) {
  const auto recipe =
      recipes::resolve(recipes::parse(file, {}, {.purpose = recipes::Purpose::kPrepare}));
  const fs::path model = data::model_directory(recipe.model.path, "model.path", recipe.model.download);
  const auto tokenizer = data::Tokenizer::load(model, recipe.model.add_tokens);
  const auto chat_template = data::ChatTemplate::load(model);
  Json report = {{"kind", "recipe"},
                 {"path", file.string()},
                 {"model", model.string()},
                 {"sources", Json::array()}};
  for (const auto* sources : {&recipe.data.train, &recipe.data.eval}) {
    for (const recipes::DataSource& source : *sources) {
      Json shown = source_report(recipe, source, rows, tokenizer, chat_template);
      shown["set"] = sources == &recipe.data.train ? "train" : "eval";
      report["sources"].push_back(std::move(shown));
    }
  }
  return report;
}

Json inspect_shard(const fs::path& file, int64_t rows, const std::string& model) {
  const data::TokenShard shard(file);
  std::optional<data::Tokenizer> tokenizer;
  if (!model.empty()) {
    const trainer::TokenizerFiles files = tokenizer_files(model);
    tokenizer = data::Tokenizer::load(files.directory, files.added_tokens);
  }
  std::vector<int32_t> lengths;
  for (int64_t row = 0; row < shard.rows(); ++row) {
    const auto ends = shard.document_ends(row);
    for (size_t d = 0; d + 1 < ends.size(); ++d)
      lengths.push_back(static_cast<int32_t>(ends[d + 1] - ends[d]));
  }
  Json report = {{"kind", "token shard"},
                 {"path", file.string()},
                 {"rows", shard.rows()},
                 {"tokens", shard.tokens()},
                 {"supervised", shard.supervised_count(0, shard.tokens())}};
  const fs::path record = fs::path(file).replace_extension("json");
  if (fs::exists(record)) {
    const Json known = data::read_json(record);
    for (const char* key : {"bad_rows", "first_bad"}) report[key] = known.at(key);
  }
  report["lengths"] = length_report(lengths);
  const recipes::Data defaults;  // a shard holds whole rows, for any max_length and packing
  report["fill"] = fill_report(lengths, defaults, recipes::Batch{}.micro);
  report["long_rows"] = std::count_if(lengths.begin(), lengths.end(),
                                      [&](int32_t length) { return length > defaults.max_length; });
  report["first_rows"] = Json::array();
  for (int64_t row = 0; row < std::min(rows, shard.rows()); ++row) {
    Json entry = {{"row_number", shard.row_number(row)}};
    const auto ends = shard.document_ends(row);
    for (size_t d = 0; d + 1 < ends.size(); ++d) {
      const data::Example example = shard.tokens(ends[d], ends[d + 1] - ends[d]);
      Json document = {{"ids", example.ids}, {"supervised", example.supervised}};
      if (tokenizer) document["runs"] = runs_of(example, *tokenizer);
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
