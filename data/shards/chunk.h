#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/readers/reader.h"
#include "data/shards/prepare.h"

/// One chunk of a data file to token shards: one, or where the chunk is a whole file, as of formats
/// that are not cut at lines, as many as keep each small.
namespace temper::data {

/// What stands beside a chunk's shards (00000.json), written after them: shards without it do not
/// count.
struct ChunkRecord {
  std::vector<std::string> hashes;  // of each shard's bytes
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t cut_rows = 0;    // by their encoder
  int64_t tokens_cut = 0;  // of these
  int64_t bad_rows = 0;
  std::vector<std::string> first_bad;  // at most kListedRows
};

struct Chunk {
  std::filesystem::path file;
  ReaderOptions part;
  std::filesystem::path stem;  // .../00000
  int64_t shard_bytes;         // of tokens in memory that end a shard

  /// .../00000.h5, and .../00000-1.h5 after it.
  std::filesystem::path shard(size_t number) const {
    return stem.string() + (number == 0 ? "" : "-" + std::to_string(number)) + ".h5";
  }
  std::filesystem::path record() const { return stem.string() + ".json"; }
  std::filesystem::path lock() const { return stem.string() + ".lock"; }
};

/// Reads the rows of a chunk, encodes them on `threads` threads and writes shards and record. `tick`
/// is called every few rows; what it throws ends the work. Bad rows are counted, or with on_bad_row = error thrown as
/// one UserError (see bad_rows.h).
void tokenize_chunk(const Chunk& chunk, const SourceEncoder& encoder, recipes::OnBadRow on_bad_row,
                    int64_t threads, const std::function<void()>& tick);

/// The record of a finished chunk whose shards are whole; empty where there is none. Where a shard
/// does not match it, the record is removed and that is said in `statements`: all are made again.
std::optional<ChunkRecord> finished(const Chunk& chunk, const std::filesystem::path& cache,
                                    std::vector<std::string>& statements);

}  // namespace temper::data
