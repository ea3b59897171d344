#include "data/shards/select.h"

#include <algorithm>
#include <span>
#include <utility>

#include "data/shards/bad_rows.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace {

using recipes::OnLongRow;

// A document of a shard, or one that stands alone: its tokens by their place in it.
struct ShardDocument {
  const TokenShard& shard;
  int64_t begin, end;
  int64_t length() const { return end - begin; }
  bool supervised(int64_t t) const { return shard.supervised(begin + t); }
  int64_t supervised_count(int64_t first, int64_t count) const {
    return shard.supervised_count(begin + first, count);
  }
};

struct SingleDocument {
  const Example& example;
  int64_t length() const { return static_cast<int64_t>(example.ids.size()); }
  bool supervised(int64_t t) const { return example.supervised[static_cast<size_t>(t)] != 0; }
  int64_t supervised_count(int64_t first, int64_t count) const {
    const auto begin = example.supervised.begin() + first;
    return std::count(begin, begin + count, 1);
  }
};

struct ShardRow {
  const TokenShard& shard;
  std::span<const int64_t> ends;
  int32_t documents() const { return static_cast<int32_t>(ends.size()) - 1; }
  ShardDocument document(int32_t d) const {
    return {shard, ends[static_cast<size_t>(d)], ends[static_cast<size_t>(d) + 1]};
  }
};

struct SingleRow {
  const TokenizedRow& row;
  int32_t documents() const { return static_cast<int32_t>(row.documents.size()); }
  SingleDocument document(int32_t d) const { return {row.documents[static_cast<size_t>(d)]}; }
};

// Targets within `length` tokens from `begin`: the first token of a document is not predicted.
template <typename AnyDocument>
int64_t targets(const AnyDocument& document, int64_t begin, int64_t length) {
  return length < 2 ? 0 : document.supervised_count(begin + 1, length - 1);
}

// The max_length from which the document has a target; 0 when it never has.
template <typename AnyDocument>
int64_t length_to_first_target(const AnyDocument& document) {
  for (int64_t t = 1; t < document.length(); ++t) {
    if (document.supervised(t)) return t + 1;
  }
  return 0;
}

}  // namespace

void Selection::find(Finding& finding, const std::string& where, const std::string& what,
                     int64_t needed) {
  finding.longest = std::max(finding.longest, needed);
  if (++finding.count <= kListedRows) finding.first.push_back(where + ": " + what);
}

bool Selection::pass_long(int64_t longest, const Place& place, OnLongRow on_long_row) {
  if (longest <= options_.max_length) return true;
  ++counts_.long_rows;
  if (on_long_row == OnLongRow::kDrop) {
    ++counts_.rows_dropped;
    return false;
  }
  if (on_long_row == OnLongRow::kError) {
    find(too_long_, place.text(), std::to_string(longest) + " tokens", longest);
    return false;
  }
  return true;
}

void Selection::find_unsupervised(const Place& place, int64_t needed) {
  find(unsupervised_, place.text(),
       needed == 0
           ? "no supervised token"
           : "no supervised token within data.max_length = " + std::to_string(options_.max_length) +
                 " (the first is token " + std::to_string(needed) + ")",
       needed);
}

template <typename AnyRow, typename Keep>
void Selection::choose(const AnyRow& row, int64_t number, const std::filesystem::path& file,
                       const RowRules& rules, const Keep& keep) {
  const bool whole = options_.on_long_row == OnLongRow::kAuto && options_.packing_splits;
  const OnLongRow on_long_row =
      options_.on_long_row == OnLongRow::kAuto ? rules.on_long_row : options_.on_long_row;
  const Place place{file, number};
  const auto choose_document = [&](int32_t d) {
    const auto document = row.document(d);
    const int64_t length = document.length();
    if (!pass_long(length, place, whole ? OnLongRow::kSplit : on_long_row)) return;
    const int64_t longest = whole ? length : options_.max_length;
    int64_t kept = 0;
    for (int64_t begin = 0; begin < length; begin += longest) {
      const int64_t taken = std::min(longest, length - begin);
      const int64_t supervised = targets(document, begin, taken);
      if (supervised > 0 || !rules.needs_targets) {
        kept += taken;
        keep(d, begin, taken, supervised);
      }
      if (on_long_row != OnLongRow::kSplit) break;
    }
    if (kept == 0) return find_unsupervised(place, length_to_first_target(document));
    if (length <= options_.max_length) return;
    counts_.tokens_cut += length - kept;
    counts_.rows_split += whole || on_long_row == OnLongRow::kSplit;
  };
  if (row.documents() == 1 || rules.unpaired) {
    for (int32_t d = 0; d < row.documents(); ++d) choose_document(d);
    return;
  }
  // Documents that are compared: all of them or none.
  int64_t longest = 0, all = 0, kept = 0, supervised = 0, needed = 0;
  bool each_has_targets = true;
  for (int32_t d = 0; d < row.documents(); ++d) {
    const auto document = row.document(d);
    const int64_t taken = std::min(document.length(), options_.max_length);
    const int64_t counted = targets(document, 0, taken);
    longest = std::max(longest, document.length());
    all += document.length();
    kept += taken;
    supervised += counted;
    if (counted == 0) {
      each_has_targets = false;
      needed = std::max(needed, length_to_first_target(document));
    }
  }
  if (!pass_long(longest, place, on_long_row)) return;
  if (!each_has_targets && rules.needs_targets) return find_unsupervised(place, needed);
  counts_.tokens_cut += all - kept;
  keep(TokenDataset::kAllDocuments, 0, kept, supervised);
}

std::vector<SelectedPiece> Selection::take(const TokenShard& shard, int32_t shard_number,
                                           int64_t rows_before, const std::filesystem::path& file,
                                           const RowRules& rules) {
  std::vector<SelectedPiece> pieces;
  for (int64_t row = 0; row < shard.rows(); ++row) {
    const std::span<const int64_t> ends = shard.document_ends(row);
    choose(ShardRow{.shard = shard, .ends = ends}, shard.row_number(row), file, rules,
           [&](int32_t document, int64_t begin, int64_t length, int64_t supervised) {
             const auto first = static_cast<size_t>(std::max(document, 0));
             pieces.push_back({.piece = {.start = ends[first] + begin,
                                         .length = static_cast<int32_t>(length),
                                         .shard = shard_number,
                                         .row = static_cast<int32_t>(row),
                                         .document = document},
                               .supervised = supervised,
                               .row = rows_before + row});
           });
  }
  return pieces;
}

std::vector<SelectedPiece> Selection::take(const TokenizedRow& row, int64_t number,
                                           const std::filesystem::path& file,
                                           const RowRules& rules) {
  std::vector<int64_t> starts;
  for (int64_t start = 0; const Example& document : row.documents) {
    starts.push_back(start);
    start += std::ssize(document.ids);
  }
  add_cut(row.cut > 0, row.cut);
  std::vector<SelectedPiece> pieces;
  choose(SingleRow{row}, number, file, rules,
         [&](int32_t document, int64_t begin, int64_t length, int64_t supervised) {
           pieces.push_back(
               {.piece = {.start = starts[static_cast<size_t>(std::max(document, 0))] + begin,
                          .length = static_cast<int32_t>(length),
                          .shard = 0,
                          .row = 0,
                          .document = document},
                .supervised = supervised,
                .row = 0});
         });
  return pieces;
}

void Selection::add_cut(int64_t rows, int64_t tokens) {
  counts_.long_rows += rows;
  counts_.tokens_cut += tokens;
}

void Selection::look_at(const TokenizedRow& row, int64_t number, const std::filesystem::path& file,
                        const RowRules& rules) {
  ++looked_at_;
  take(row, number, file, rules);
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
