#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/readers/reader.h"
#include "data/shards/prepare.h"

/// One chunk of a data file to one token shard.
namespace temper::data {

/// What stands beside a shard (00000.json), written after it: a shard without it does not count.
struct ChunkRecord {
  std::string hash;  // of the shard's bytes
  int64_t rows = 0;
  int64_t tokens = 0;
  int64_t bad_rows = 0;
  std::vector<std::string> first_bad;  // at most kListedRows
};

struct Chunk {
  std::filesystem::path file;
  ReaderOptions part;
  std::filesystem::path shard;  // .../00000.h5

  std::filesystem::path record() const {
    return std::filesystem::path(shard).replace_extension("json");
  }
  std::filesystem::path lock() const {
    return std::filesystem::path(shard).replace_extension("lock");
  }
};

/// Reads and encodes the rows of a chunk and writes shard and record. `tick` is called before each
/// row; what it throws ends the work. Bad rows are counted, or with on_bad_row = error thrown as
/// one UserError (see bad_rows.h).
void tokenize_chunk(const Chunk& chunk, const SourceEncoder& encoder, recipes::OnBadRow on_bad_row,
                    const std::function<void()>& tick);

/// The record of a finished chunk whose shard is whole; empty where there is none. A shard that
/// does not match its record is removed and said in `statements`, so that it is made again.
std::optional<ChunkRecord> finished(const Chunk& chunk, const std::filesystem::path& cache,
                                    std::vector<std::string>& statements);

}  // namespace temper::data
