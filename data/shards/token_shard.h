#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/formats/example.h"

/// Rows of one chunk of input as tokens, in one HDF5 file that anything can read:
///     ids         uint16, or int32 where an id needs it   [tokens]
///     supervised  uint8, 8 tokens a byte, lowest bit first [ceil(tokens / 8)]
///     offsets     int64, of each document's first token    [documents + 1]
///     documents   int64, of each row's first document      [rows + 1]
///     row_numbers int64, the row's place in its file       [rows]
///     columns     uint8, what rows keep beside their tokens, JSON as text
///     column_ends int64, where each row's text begins      [rows + 1]
/// Rows are whole: data.max_length is applied when a data set is opened, so that changing it
/// tokenizes nothing again.
namespace temper::data {

/// Collects rows and writes them at once. One thread.
class TokenShardWriter {
 public:
  TokenShardWriter() = default;
  /// Room for rows of `bytes` (as bytes() counts) at once: ids that grow by doubling would be there
  /// twice each time, and pages that are not touched take no memory.
  explicit TokenShardWriter(int64_t bytes) { ids_.reserve(static_cast<size_t>(bytes / 4)); }
  void add(const TokenizedRow& row, int64_t row_number);
  /// Complete or absent; equal rows give equal bytes. Synced, but for its name in the directory,
  /// which the record that is written after it brings. Throws RunError naming path and reason (disk
  /// full, ...).
  void write(const std::filesystem::path& path) const;
  int64_t rows() const { return static_cast<int64_t>(row_numbers_.size()); }
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }
  /// Of memory, nearly: ids and what rows keep beside them.
  int64_t bytes() const { return 4 * tokens() + static_cast<int64_t>(columns_.size()); }

 private:
  friend class TokenShard;
  std::vector<int32_t> ids_;
  std::vector<uint8_t> supervised_;  // bits
  std::vector<int64_t> offsets_ = {0};
  std::vector<int64_t> documents_ = {0};
  std::vector<int64_t> row_numbers_;
  std::string columns_;
  std::vector<int64_t> column_ends_ = {0};
};

/// A shard mapped into memory: the file system's cache is the only copy, shared by all ranks of a
/// host. From any thread.
class TokenShard {
 public:
  /// Throws RunError naming the path for a file that is not a whole shard.
  explicit TokenShard(const std::filesystem::path& path);
  /// Of rows that are in memory alone.
  explicit TokenShard(TokenShardWriter rows);
  ~TokenShard();
  TokenShard(const TokenShard&) = delete;
  TokenShard& operator=(const TokenShard&) = delete;

  int64_t rows() const { return static_cast<int64_t>(row_numbers_.size()); }
  int64_t row_number(int64_t row) const { return row_numbers_[static_cast<size_t>(row)]; }
  /// Where the row's documents lie in the shard: document d has the tokens [ends[d], ends[d + 1]).
  std::span<const int64_t> document_ends(int64_t row) const {
    const auto first = static_cast<size_t>(documents_[static_cast<size_t>(row)]);
    const auto last = static_cast<size_t>(documents_[static_cast<size_t>(row) + 1]);
    return std::span(offsets_).subspan(first, last - first + 1);
  }
  /// Tokens of all rows.
  int64_t tokens() const { return offsets_.back(); }
  /// TokenizedRow::columns.
  std::string_view columns(int64_t row) const {
    const int64_t begin = column_ends_[static_cast<size_t>(row)];
    return {columns_ + begin,
            static_cast<size_t>(column_ends_[static_cast<size_t>(row) + 1] - begin)};
  }
  /// The ids and mask of `length` tokens from `start`, which lie within the shard.
  Example tokens(int64_t start, int64_t length) const;
  /// Of the tokens [start, start + length).
  int64_t supervised_count(int64_t start, int64_t length) const;
  bool supervised(int64_t token) const { return (supervised_[token / 8] >> (token % 8) & 1) != 0; }

 private:
  TokenShardWriter in_memory_;  // empty where the shard is a file
  void* mapping_ = nullptr;     // null where it is in memory
  size_t bytes_ = 0;
  bool wide_ = false;  // ids are int32
  const unsigned char* ids_ = nullptr;
  const uint8_t* supervised_ = nullptr;
  const char* columns_ = nullptr;
  std::vector<int64_t> offsets_;
  std::vector<int64_t> documents_;
  std::vector<int64_t> row_numbers_;
  std::vector<int64_t> column_ends_;
};

}  // namespace temper::data
