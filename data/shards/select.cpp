#include "data/shards/select.h"

#include <algorithm>
#include <utility>

#include "data/shards/bad_rows.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

using recipes::OnLongRow;

// A row of a shard, or one that stands alone: its tokens by their place in the row.
struct ShardRow {
  const TokenShard& shard;
  int64_t row;
  int64_t length() const { return shard.length(row); }
  bool supervised(int64_t t) const { return shard.supervised(shard.offset(row) + t); }
  int64_t supervised_count(int64_t begin, int64_t count) const {
    return shard.supervised_count(shard.offset(row) + begin, count);
  }
};

struct SingleRow {
  const Example& example;
  int64_t length() const { return static_cast<int64_t>(example.ids.size()); }
  bool supervised(int64_t t) const { return example.supervised[static_cast<size_t>(t)] != 0; }
  int64_t supervised_count(int64_t begin, int64_t count) const {
    const auto first = example.supervised.begin() + begin;
    return std::count(first, first + count, 1);
  }
};

// Targets within `length` tokens from `begin`: the first token of a document is not predicted.
template <typename AnyRow>
int64_t targets(const AnyRow& row, int64_t begin, int64_t length) {
  return length < 2 ? 0 : row.supervised_count(begin + 1, length - 1);
}

// The max_length from which the row has a target; 0 when it never has.
template <typename AnyRow>
int64_t length_to_first_target(const AnyRow& row) {
  for (int64_t t = 1; t < row.length(); ++t) {
    if (row.supervised(t)) return t + 1;
  }
  return 0;
}

}  // namespace

void Selection::find(Finding& finding, const std::string& where, const std::string& what,
                     int64_t needed) {
  finding.longest = std::max(finding.longest, needed);
  if (++finding.count <= kListedRows) finding.first.push_back(where + ": " + what);
}

template <typename AnyRow, typename Keep>
void Selection::choose(const AnyRow& row, int64_t number, const std::filesystem::path& file,
                       const std::string& format, const Keep& keep) {
  OnLongRow on_long_row = options_.on_long_row;
  if (on_long_row == OnLongRow::kAuto) {
    on_long_row = format == "text" ? OnLongRow::kSplit : OnLongRow::kTruncate;
  }
  const int64_t length = row.length();
  const bool is_long = length > options_.max_length;
  const auto where = [&] { return file.string() + ":" + std::to_string(number); };
  counts_.long_rows += is_long;
  if (is_long && on_long_row == OnLongRow::kDrop) {
    ++counts_.rows_dropped;
    return;
  }
  if (is_long && on_long_row == OnLongRow::kError) {
    find(too_long_, where(), std::to_string(length) + " tokens", length);
    return;
  }
  int64_t kept = 0;
  for (int64_t begin = 0; begin < length; begin += options_.max_length) {
    const int64_t taken = std::min(options_.max_length, length - begin);
    const int64_t supervised = targets(row, begin, taken);
    if (supervised > 0) {
      kept += taken;
      keep(begin, taken, supervised);
    }
    if (on_long_row != OnLongRow::kSplit) break;
  }
  if (kept == 0) {
    const int64_t needed = length_to_first_target(row);
    find(unsupervised_, where(),
         needed == 0 ? "no supervised token"
                     : "no supervised token within data.max_length = " +
                           std::to_string(options_.max_length) + " (the first is token " +
                           std::to_string(needed) + ")",
         needed);
    return;
  }
  if (is_long) counts_.tokens_cut += length - kept;
  if (is_long && on_long_row == OnLongRow::kSplit) ++counts_.rows_split;
}

std::vector<SelectedPiece> Selection::take(const TokenShard& shard, int32_t shard_number,
                                           const std::filesystem::path& file,
                                           const std::string& format) {
  std::vector<SelectedPiece> pieces;
  for (int64_t row = 0; row < shard.rows(); ++row) {
    choose(ShardRow{.shard = shard, .row = row}, shard.row_number(row), file, format,
           [&](int64_t begin, int64_t length, int64_t supervised) {
             pieces.push_back({.piece = {.start = shard.offset(row) + begin,
                                         .length = static_cast<int32_t>(length),
                                         .shard = shard_number},
                               .supervised = supervised});
           });
  }
  return pieces;
}

void Selection::look_at(const Example& example, int64_t number, const std::filesystem::path& file,
                        const std::string& format) {
  ++looked_at_;
  choose(SingleRow{example}, number, file, format, [](int64_t, int64_t, int64_t) {});
}

void Selection::refuse() const {
  const auto rows = [this](const Finding& finding) {
    const std::string count = std::to_string(finding.count);
    if (looked_at_ > 0) return count + " of the first " + std::to_string(looked_at_) + " rows";
    return count + (finding.count == 1 ? " row" : " rows");
  };
  std::vector<std::string> lines;
  if (too_long_.count > 0) {
    lines = too_long_.first;
    lines.push_back("data.on_long_row = \"error\": " + rows(too_long_) +
                    " above data.max_length = " + std::to_string(options_.max_length) +
                    ": data.max_length=" + std::to_string(too_long_.longest) +
                    ", or data.on_long_row=truncate, split or drop");
  }
  if (unsupervised_.count > 0 && options_.on_bad_row == recipes::OnBadRow::kError) {
    const std::string remedy =
        (unsupervised_.longest > 0
             ? "data.max_length=" + std::to_string(unsupervised_.longest) + " reaches them, or "
             : std::string()) +
        "data.on_bad_row=skip leaves them out (counted and listed)";
    if (unsupervised_.count == 1) {
      lines.push_back(unsupervised_.first.front() + "; " + remedy);
    } else {
      lines.insert(lines.end(), unsupervised_.first.begin(), unsupervised_.first.end());
      lines.push_back("data.on_bad_row = \"error\": " + rows(unsupervised_) +
                      " without a supervised token (the first are listed): " + remedy);
    }
  }
  if (!lines.empty()) throw UserError(std::move(lines));
}

void Selection::finish(PrepareReport& report) const {
  refuse();
  report.long_rows += counts_.long_rows;
  report.rows_split += counts_.rows_split;
  report.tokens_cut += counts_.tokens_cut;
  report.rows_dropped += counts_.rows_dropped;
  report.bad_rows += unsupervised_.count;
  for (const std::string& line : unsupervised_.first) {
    if (static_cast<int64_t>(report.first_bad.size()) < kListedRows)
      report.first_bad.push_back(line);
  }
}

}  // namespace temper::data
