#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/formats/example.h"
#include "data/shards/token_shard.h"

/// Random access to the tokenized rows of a data set, in file order, after data.max_length and the
/// weights of its sources were applied. Rows lie in mapped shards: opening costs 24 bytes a row.
/// Immutable; from any thread.
namespace temper::data {

class TokenDataset {
 public:
  static constexpr int32_t kAllDocuments = -1;

  /// One row: `length` tokens of a shard from `start`, of one of the documents of the shard's row
  /// `row`; or all of its documents, none longer than the data set's max_length, of `length` tokens
  /// together.
  struct Piece {
    int64_t start;
    int32_t length;
    int32_t shard;
    int32_t row = 0;
    int32_t document = 0;  // or kAllDocuments
  };

  /// `max_length` cuts the documents of pieces with all of them.
  TokenDataset(std::vector<std::shared_ptr<const TokenShard>> shards, std::vector<Piece> pieces,
               int64_t max_length);

  int64_t size() const { return static_cast<int64_t>(pieces_.size()); }
  /// Tokens of row i, of all documents.
  int64_t length(int64_t i) const { return pieces_[static_cast<size_t>(i)].length; }
  /// Row i with all of its documents, and its columns.
  TokenizedRow row(int64_t i) const;
  /// Of a row of one document.
  Example example(int64_t i) const { return example(i, 0, length(i)); }
  /// Tokens [begin, end) of it.
  Example example(int64_t i, int64_t begin, int64_t end) const;
  /// Tokens of the mean row; 0 without rows.
  double mean_length() const { return mean_length_; }

 private:
  std::vector<std::shared_ptr<const TokenShard>> shards_;
  std::vector<Piece> pieces_;
  int64_t max_length_;
  double mean_length_ = 0;
};

}  // namespace temper::data
