#include "data/shards/prepare.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

std::string count(int64_t n, const std::string& thing) {
  return std::to_string(n) + " " + thing + (n == 1 ? "" : "s");
}

}  // namespace

SourceEncoder source_encoder(const RowEncoder& encoder) {
  return {.encode = [encoder](const Row& row) { return encoder.encode(row); },
          .fingerprint = encoder.fingerprint(),
          .format = encoder.format(),
          .rules = encoder.rules(),
          .statement = encoder.statement()};
}

PrepareOptions settings_of(const recipes::Data& data) {
  using recipes::Packing;
  return {.cache = data.cache,
          .max_length = data.max_length,
          .on_long_row = data.on_long_row,
          .packing_splits = data.packing == Packing::kBfdSplit || data.packing == Packing::kWrapped,
          .on_bad_row = data.on_bad_row,
          .workers = data.workers};
}

std::vector<std::string> statements_of(const std::string& set, const PrepareReport& report,
                                       int64_t max_length) {
  std::vector<std::string> lines = report.statements;
  std::string line = set + ": " + count(report.rows, "row") + ", " + count(report.tokens, "token") +
                     ", " + std::to_string(report.supervised) + " supervised" +
                     (report.from_cache ? " (from the cache)" : "");
  if (report.long_rows > 0) {
    line += "; " + count(report.long_rows, "row") +
            " above data.max_length = " + std::to_string(max_length);
    if (report.rows_split > 0) line += ": " + std::to_string(report.rows_split) + " split";
    if (report.tokens_cut > 0) line += ": " + count(report.tokens_cut, "token") + " cut";
    if (report.rows_dropped > 0) line += ": " + std::to_string(report.rows_dropped) + " dropped";
  }
  lines.push_back(line);
  if (report.bad_rows > 0) {
    lines.push_back(set + ": " + count(report.bad_rows, "bad row") +
                    " skipped: " + join(report.first_bad, "; "));
  }
  return lines;
}

}  // namespace temper::data
