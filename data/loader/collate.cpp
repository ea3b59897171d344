#include "data/loader/collate.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

namespace temper::data {

namespace {

constexpr int64_t kNotCounted = -100;

void count_up(int64_t* positions, int64_t length) {
  for (int64_t t = 0; t < length; ++t) positions[t] = t;
}

}  // namespace

Batch collate(std::span<const Documents> rows) {
  const int64_t row_count = static_cast<int64_t>(rows.size());
  int64_t longest = 0;
  for (const Documents& row : rows) {
    int64_t tokens = 0;
    for (const Example& document : row) tokens += static_cast<int64_t>(document.ids.size());
    longest = std::max(longest, tokens);
  }
  Batch batch;
  batch.token_ids = at::zeros({row_count, longest}, at::kLong);
  batch.labels = at::full({row_count, longest}, kNotCounted, at::kLong);
  batch.positions = at::empty({row_count, longest}, at::kLong);
  batch.rows = row_count;
  std::vector<int32_t> ends = {0};
  for (int64_t b = 0; b < row_count; ++b) {
    int64_t* ids = batch.token_ids.mutable_data_ptr<int64_t>() + b * longest;
    int64_t* labels = batch.labels.mutable_data_ptr<int64_t>() + b * longest;
    int64_t* positions = batch.positions.mutable_data_ptr<int64_t>() + b * longest;
    int64_t filled = 0;
    for (const Example& document : rows[static_cast<size_t>(b)]) {
      const int64_t length = static_cast<int64_t>(document.ids.size());
      std::copy(document.ids.begin(), document.ids.end(), ids + filled);
      count_up(positions + filled, length);
      for (int64_t t = 0; t + 1 < length; ++t) {
        if (document.supervised[static_cast<size_t>(t + 1)] == 0) continue;
        labels[filled + t] = document.ids[static_cast<size_t>(t + 1)];
        ++batch.supervised;
      }
      filled += length;
      if (length > 0) ends.push_back(static_cast<int32_t>(b * longest + filled));
    }
    batch.input_tokens += filled;
    if (filled < longest) {
      count_up(positions + filled, longest - filled);
      ends.push_back(static_cast<int32_t>((b + 1) * longest));
    }
  }
  batch.document_ends = at::empty({static_cast<int64_t>(ends.size())}, at::kInt);
  std::copy(ends.begin(), ends.end(), batch.document_ends.mutable_data_ptr<int32_t>());
  return batch;
}

namespace {

// How many tokens the row's documents share at their start: up to the last one before the first
// supervised token of any of them, so that each has all of its own targets behind it.
size_t shared_tokens(const TokenizedRow& row) {
  if (row.documents.size() < 2) return 0;
  const std::vector<int32_t>& first = row.documents.front().ids;
  size_t shared = first.size();
  for (const Example& document : row.documents) {
    const auto supervised =
        std::find(document.supervised.begin() + 1, document.supervised.end(), uint8_t{1});
    // Each keeps a token of its own.
    shared = std::min({shared, static_cast<size_t>(supervised - document.supervised.begin()),
                       document.ids.size() - 1});
    const auto [mine, theirs] = std::mismatch(first.begin(), first.begin() + std::ptrdiff_t(shared),
                                              document.ids.begin(), document.ids.end());
    // A document keeps at least its last token.
    shared = std::min(static_cast<size_t>(mine - first.begin()), document.ids.size() - 1);
  }
  return shared;
}

// A batch as it grows, token by token.
struct Growing {
  std::vector<int64_t> ids, positions, target_positions, target_labels, target_ends{0}, last_tokens;
  std::vector<int32_t> ends{0}, prefixes;

  // Tokens [begin, end) of `document` as a document of their own.
  void add(const Example& document, size_t begin, size_t end, int32_t prefix) {
    for (size_t t = begin; t < end; ++t) {
      ids.push_back(document.ids[t]);
      positions.push_back(static_cast<int64_t>(t));
    }
    ends.push_back(static_cast<int32_t>(ids.size()));
    prefixes.push_back(prefix);
  }
};

at::Tensor longs(const std::vector<int64_t>& values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int64_t>());
  return tensor;
}

at::Tensor ints(const std::vector<int32_t>& values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kInt);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<int32_t>());
  return tensor;
}

}  // namespace

Batch collate_rows(std::vector<TokenizedRow> rows, const RowLayout& layout) {
  Batch batch;
  Growing growing;
  bool any_prefix = false;
  for (const TokenizedRow& row : rows) {
    const size_t shared = layout.share_prefixes ? shared_tokens(row) : 0;
    // Where the common tokens begin in the batch, and which document they are.
    const auto common = static_cast<int64_t>(growing.ids.size());
    int32_t prefix = -1;
    if (shared > 0) {
      prefix = static_cast<int32_t>(growing.prefixes.size());
      growing.add(row.documents.front(), 0, shared, -1);
      any_prefix = true;
    }
    for (const Example& document : row.documents) {
      const auto own = static_cast<int64_t>(growing.ids.size());
      const auto place = [&](size_t t) {
        return t < shared ? common + static_cast<int64_t>(t) : own + static_cast<int64_t>(t - shared);
      };
      growing.add(document, shared, document.ids.size(), prefix);
      for (size_t t = 1; t < document.ids.size(); ++t) {
        if (document.supervised[t] == 0 && !layout.prompts_too) continue;
        growing.target_positions.push_back(place(t - 1));
        growing.target_labels.push_back(document.ids[t]);
      }
      growing.target_ends.push_back(static_cast<int64_t>(growing.target_labels.size()));
      growing.last_tokens.push_back(place(document.ids.size() - 1));
      batch.input_tokens += static_cast<int64_t>(document.ids.size());
    }
  }
  const auto tokens = static_cast<int64_t>(growing.ids.size());
  batch.token_ids = longs(growing.ids).view({1, tokens});
  batch.positions = longs(growing.positions).view({1, tokens});
  batch.document_ends = ints(growing.ends);
  if (any_prefix) batch.prefixes = ints(growing.prefixes);
  batch.targets = {.positions = longs(growing.target_positions),
                   .labels = longs(growing.target_labels),
                   .ends = longs(growing.target_ends),
                   .last_tokens = longs(growing.last_tokens)};
  batch.rows = static_cast<int64_t>(rows.size());
  batch.supervised = batch.targets.labels.numel();
  batch.tokenized = std::move(rows);
  return batch;
}

}  // namespace temper::data
