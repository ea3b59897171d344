#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/shards/prepare.h"
#include "data/shards/token_dataset.h"

/// Which tokens of whole rows a data set takes: data.max_length and data.on_long_row, applied to
/// finished shards.
namespace temper::data {

struct SelectedPiece {
  TokenDataset::Piece piece;
  int64_t supervised;  // targets of the loss: the first token never is one
};

/// Walks shards and gathers pieces, counts and what is wrong.
class Selection {
 public:
  explicit Selection(const PrepareOptions& options) : options_(options) {}

  /// All rows of a shard. `format`: on_long_row = auto splits "text" and truncates others. `file`
  /// is named in messages.
  std::vector<SelectedPiece> take(const TokenShard& shard, int32_t shard_number,
                                  const std::filesystem::path& file, const std::string& format);
  /// One of the first rows, before there is a shard: only for what is wrong with it.
  void look_at(const Example& example, int64_t number, const std::filesystem::path& file,
               const std::string& format);

  /// Throws UserError for rows left without a supervised token (on_bad_row = error) and for long
  /// rows (on_long_row = error), with the count, the first ten and the remedies.
  void refuse() const;
  /// Adds the counts to `report`, if there is nothing to refuse().
  void finish(PrepareReport& report) const;

 private:
  struct Finding {
    int64_t count = 0;
    int64_t longest = 0;  // the max_length that would mend all of them
    std::vector<std::string> first;
  };
  void find(Finding& finding, const std::string& where, const std::string& what, int64_t needed);
  /// keep(begin, length, supervised) is called for each piece of the row that is taken.
  template <typename AnyRow, typename Keep>
  void choose(const AnyRow& row, int64_t number, const std::filesystem::path& file,
              const std::string& format, const Keep& keep);

  PrepareOptions options_;
  Finding unsupervised_;
  Finding too_long_;
  PrepareReport counts_;
  int64_t looked_at_ = 0;
};

}  // namespace temper::data
