#include "data/shards/token_dataset.h"

#include <utility>

#include "recipes/diagnostic.h"

namespace temper::data {

TokenDataset::TokenDataset(std::vector<std::shared_ptr<const TokenShard>> shards,
                           std::vector<Piece> pieces)
    : shards_(std::move(shards)), pieces_(std::move(pieces)) {
  double tokens = 0;
  for (const Piece& piece : pieces_) tokens += piece.length;
  if (!pieces_.empty()) mean_length_ = tokens / static_cast<double>(pieces_.size());
}

Example TokenDataset::example(int64_t i, int64_t begin, int64_t end) const {
  TEMPER_CHECK(i >= 0 && i < size() && begin >= 0 && begin <= end && end <= length(i),
               "within the data set");
  const Piece& piece = pieces_[static_cast<size_t>(i)];
  return shards_[static_cast<size_t>(piece.shard)]->tokens(piece.start + begin, end - begin);
}

}  // namespace temper::data
