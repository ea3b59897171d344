#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/formats/example.h"
#include "data/shards/token_shard.h"

/// Random access to the tokenized examples of a data set, in file order, after data.max_length and
/// the weights of its sources were applied. Examples lie in mapped shards: opening costs 16 bytes
/// an example. Immutable; from any thread.
namespace temper::data {

class TokenDataset {
 public:
  /// One example: `length` tokens of a shard from `start`.
  struct Piece {
    int64_t start;
    int32_t length;
    int32_t shard;
  };

  TokenDataset(std::vector<std::shared_ptr<const TokenShard>> shards, std::vector<Piece> pieces);

  int64_t size() const { return static_cast<int64_t>(pieces_.size()); }
  int64_t length(int64_t i) const { return pieces_[static_cast<size_t>(i)].length; }
  Example example(int64_t i) const { return example(i, 0, length(i)); }
  /// Row i with all of its documents.
  TokenizedRow row(int64_t i) const { return {.documents = {example(i)}, .columns = {}}; }
  /// Tokens [begin, end) of example i.
  Example example(int64_t i, int64_t begin, int64_t end) const;
  /// Tokens of the mean example; 0 without examples.
  double mean_length() const { return mean_length_; }

 private:
  std::vector<std::shared_ptr<const TokenShard>> shards_;
  std::vector<Piece> pieces_;
  double mean_length_ = 0;
};

}  // namespace temper::data
