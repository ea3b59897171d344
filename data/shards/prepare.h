#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "data/formats/example.h"
#include "data/formats/row_encoder.h"
#include "data/readers/row.h"
#include "data/shards/token_dataset.h"
#include "recipes/recipe.h"

/// Data files to a data set of tokens, through the cache: each file is cut into chunks, each chunk
/// becomes a token shard or several, made by whichever rank claims it first. No collective: ranks
/// meet in the file system, and each returns when all shards are there.
namespace temper::data {

/// How rows of one source become tokens: what data/formats makes of a source, its columns, the
/// tokenizer and the template.
struct SourceEncoder {
  /// From several threads. Throws UserError "file:line: what" for a row that is wrong.
  std::function<TokenizedRow(const Row&)> encode;
  std::string fingerprint;  // of everything that decides the tokens: part of the cache's key
  std::string format;       // "text", "messages", ...
  RowRules rules{};
  std::string statement;  // what was recognised, for the log; may be empty
};
/// What a RowEncoder says of itself.
SourceEncoder source_encoder(const RowEncoder& encoder);
using EncoderFactory =
    std::function<SourceEncoder(const recipes::DataSource&, const Row& first_row)>;

inline constexpr int64_t kChunkBytes = 64 << 20;

struct PrepareOptions {
  std::filesystem::path cache;
  int64_t max_length = 1024;
  recipes::OnLongRow on_long_row = recipes::OnLongRow::kAuto;
  bool packing_splits = false;  // packing cuts long rows itself: "auto" leaves them whole
  recipes::OnBadRow on_bad_row = recipes::OnBadRow::kError;
  int64_t chunk_bytes = kChunkBytes;  // of a file, to one claim; a shard has at most about twice as
                                      // many of tokens
  int64_t workers = 1;                // threads of this rank
  int rank = 0;
  int ranks = 1;
};

/// As [data] says, on one rank.
PrepareOptions settings_of(const recipes::Data& data);

struct PrepareReport {
  int64_t files = 0;
  int64_t rows = 0;        // read, bad ones included
  int64_t bad_rows = 0;    // left out (on_bad_row = skip)
  int64_t tokens = 0;      // of the data set
  int64_t supervised = 0;  // of those, targets of the loss
  int64_t long_rows = 0;   // above max_length
  int64_t rows_split = 0;
  int64_t tokens_cut = 0;  // of long rows, left out by truncation or for want of a supervised token
  int64_t rows_dropped = 0;  // on_long_row = drop
  bool from_cache = false;   // nothing was tokenized, by any rank's doing, during this call
  std::vector<std::string> first_bad;   // at most ten lines
  std::vector<std::string> statements;  // formats recognised, shards made again, weights applied
  double seconds = 0;
};

/// What was read and what happened to it, a line or two, for the log. `set`: "data.train".
std::vector<std::string> statements_of(const std::string& set, const PrepareReport& report,
                                       int64_t max_length);

/// Throws UserError: files that cannot be read; with on_bad_row = error the first ten bad rows (as
/// soon as ten are known, or the first 10,000 rows are read, or a few seconds after the first) and
/// both remedies. Throws RunError when the cache cannot be written.
std::shared_ptr<const TokenDataset> prepare(const std::vector<recipes::DataSource>& sources,
                                            const EncoderFactory& factory,
                                            const PrepareOptions& options, PrepareReport* report);

}  // namespace temper::data
