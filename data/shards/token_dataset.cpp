#include "data/shards/token_dataset.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

// Of a row whose documents are rows of their own each has a line.
std::string_view line_of(std::string_view columns, int32_t number) {
  for (; number > 0; --number) columns.remove_prefix(columns.find('\n') + 1);
  return columns.substr(0, columns.find('\n'));
}

}  // namespace

TokenDataset::TokenDataset(std::vector<std::shared_ptr<const TokenShard>> shards,
                           std::vector<Piece> pieces, int64_t max_length)
    : shards_(std::move(shards)), pieces_(std::move(pieces)), max_length_(max_length) {
  double tokens = 0;
  for (const Piece& piece : pieces_) tokens += piece.length;
  if (!pieces_.empty()) mean_length_ = tokens / static_cast<double>(pieces_.size());
}

TokenizedRow TokenDataset::row(int64_t i) const {
  TEMPER_CHECK(i >= 0 && i < size(), "within the data set");
  const Piece& piece = pieces_[static_cast<size_t>(i)];
  const TokenShard& shard = *shards_[static_cast<size_t>(piece.shard)];
  const std::string_view columns = shard.columns(piece.row);
  if (piece.document != kAllDocuments)
    return {.documents = {example(i)}, .columns = std::string(line_of(columns, piece.document))};
  TokenizedRow row{.documents = {}, .columns = std::string(columns)};
  const std::span<const int64_t> ends = shard.document_ends(piece.row);
  for (size_t d = 0; d + 1 < ends.size(); ++d)
    row.documents.push_back(shard.tokens(ends[d], std::min(ends[d + 1] - ends[d], max_length_)));
  return row;
}

Example TokenDataset::example(int64_t i, int64_t begin, int64_t end) const {
  TEMPER_CHECK(i >= 0 && i < size() && begin >= 0 && begin <= end && end <= length(i),
               "within the data set");
  const Piece& piece = pieces_[static_cast<size_t>(i)];
  TEMPER_CHECK(piece.document != kAllDocuments, "a row of one document");
  return shards_[static_cast<size_t>(piece.shard)]->tokens(piece.start + begin, end - begin);
}

}  // namespace temper::data
