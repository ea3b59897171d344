#include "data/shards/select.h"

#include <algorithm>
#include <utility>

#include "data/shards/chunk.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

using recipes::OnLongRow;

// Targets within `length` tokens from `start`: the first token of a document is not predicted.
int64_t targets(const TokenShard& shard, int64_t start, int64_t length) {
  return length < 2 ? 0 : shard.supervised_count(start + 1, length - 1);
}

// The max_length from which the row has a target; 0 when it never has.
int64_t length_to_first_target(const TokenShard& shard, int64_t row) {
  for (int64_t t = 1; t < shard.length(row); ++t) {
    if (shard.supervised(shard.offset(row) + t)) return t + 1;
  }
  return 0;
}

}  // namespace

void Selection::find(Finding& finding, const std::string& where, const std::string& what,
                     int64_t needed) {
  finding.longest = std::max(finding.longest, needed);
  if (++finding.count <= kListedRows) finding.first.push_back(where + ": " + what);
}

std::vector<SelectedPiece> Selection::take(const TokenShard& shard, int32_t shard_number,
                                           const std::filesystem::path& file,
                                           const std::string& format) {
  OnLongRow on_long_row = options_.on_long_row;
  if (on_long_row == OnLongRow::kAuto) {
    on_long_row = format == "text" ? OnLongRow::kSplit : OnLongRow::kTruncate;
  }
  std::vector<SelectedPiece> pieces;
  for (int64_t row = 0; row < shard.rows(); ++row) {
    const int64_t length = shard.length(row);
    const bool is_long = length > options_.max_length;
    const auto where = [&] { return file.string() + ":" + std::to_string(shard.row_number(row)); };
    counts_.long_rows += is_long;
    if (is_long && on_long_row == OnLongRow::kDrop) {
      ++counts_.rows_dropped;
      continue;
    }
    if (is_long && on_long_row == OnLongRow::kError) {
      find(too_long_, where(), std::to_string(length) + " tokens", length);
      continue;
    }
    int64_t kept = 0;
    for (int64_t begin = 0; begin < length; begin += options_.max_length) {
      const int64_t start = shard.offset(row) + begin;
      const int64_t taken = std::min(options_.max_length, length - begin);
      const int64_t supervised = targets(shard, start, taken);
      if (supervised > 0) {
        kept += taken;
        pieces.push_back({.piece = {.start = start,
                                    .length = static_cast<int32_t>(taken),
                                    .shard = shard_number},
                          .supervised = supervised});
      }
      if (on_long_row != OnLongRow::kSplit) break;
    }
    if (kept == 0) {
      const int64_t needed = length_to_first_target(shard, row);
      find(unsupervised_, where(),
           needed == 0 ? "no supervised token"
                       : "no supervised token within data.max_length = " +
                             std::to_string(options_.max_length) + " (the first is token " +
                             std::to_string(needed) + ")",
           needed);
      continue;
    }
    if (is_long) counts_.tokens_cut += length - kept;
    if (is_long && on_long_row == OnLongRow::kSplit) ++counts_.rows_split;
  }
  return pieces;
}

void Selection::finish(PrepareReport& report) const {
  const auto rows = [](const Finding& finding) {
    return std::to_string(finding.count) + (finding.count == 1 ? " row" : " rows");
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
