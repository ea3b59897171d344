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
  int64_t supervised;  // targets of the loss: a document's first token never is one
  int64_t row;         // of the source, counted from 0
};

/// Walks shards and gathers pieces, counts and what is wrong.
class Selection {
 public:
  explicit Selection(const PrepareOptions& options) : options_(options) {}

  /// All rows of a shard, of which the source has `rows_before`. `file` is named in messages.
  std::vector<SelectedPiece> take(const TokenShard& shard, int32_t shard_number,
                                  int64_t rows_before, const std::filesystem::path& file,
                                  const RowRules& rules);
  /// A row that is in no shard yet: pieces start at its own first token.
  std::vector<SelectedPiece> take(const TokenizedRow& row, int64_t number,
                                  const std::filesystem::path& file, const RowRules& rules);
  /// Rows that their encoder has cut, and of how many tokens.
  void add_cut(int64_t rows, int64_t tokens);
  /// One of the first rows: only for what is wrong with it.
  void look_at(const TokenizedRow& row, int64_t number, const std::filesystem::path& file,
               const RowRules& rules);

  /// Throws UserError for rows left without a supervised token (on_bad_row = error) and for long
  /// rows (on_long_row = error), with the count, the first ten and the remedies.
  void refuse() const;
  /// Adds the counts to `report`, if there is nothing to refuse().
  void finish(PrepareReport& report) const;

 private:
  struct Place {
    const std::filesystem::path& file;
    int64_t number;
    std::string text() const { return file.string() + ":" + std::to_string(number); }
  };
  struct Finding {
    int64_t count = 0;
    int64_t longest = 0;  // the max_length that would mend all of them
    std::vector<std::string> first;
  };
  void find(Finding& finding, const std::string& where, const std::string& what, int64_t needed);
  /// keep(document, begin, length, supervised) is called for each piece of the row that is taken:
  /// of one document, or of kAllDocuments with the tokens that are left of them.
  template <typename AnyRow, typename Keep>
  void choose(const AnyRow& row, int64_t number, const std::filesystem::path& file,
              const RowRules& rules, const Keep& keep);
  /// Whether the row, whose longest document has `longest` tokens, goes on being judged.
  bool pass_long(int64_t longest, const Place& place, recipes::OnLongRow on_long_row);
  void find_unsupervised(const Place& place, int64_t needed);

  PrepareOptions options_;
  Finding unsupervised_;
  Finding too_long_;
  PrepareReport counts_;
  int64_t looked_at_ = 0;
};

}  // namespace temper::data
