#include "data/loader/collate.h"

#include <algorithm>

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

}  // namespace temper::data
