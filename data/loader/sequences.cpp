#include "data/loader/sequences.h"

#include <utility>

#include "data/loader/collate.h"
#include "data/shards/token_dataset.h"

namespace temper::data {

Sequences::Sequences(std::shared_ptr<const TokenDataset> dataset, const LoaderOptions& options)
    : dataset_(std::move(dataset)), row_layout_(options.row_layout) {
  if (row_layout_) return;
  std::vector<int32_t> lengths(static_cast<size_t>(dataset_->size()));
  for (size_t i = 0; i < lengths.size(); ++i) {
    lengths[i] = static_cast<int32_t>(dataset_->length(static_cast<int64_t>(i)));
  }
  packed_ = pack(lengths, options.max_length, options.packing, options.packing_window);
}

int64_t Sequences::size() const { return row_layout_ ? dataset_->size() : packed_.size(); }

Batch Sequences::batch(std::span<const int64_t> numbers) const {
  if (row_layout_) {
    std::vector<TokenizedRow> rows;
    for (const int64_t number : numbers) rows.push_back(dataset_->row(number));
    Batch batch = collate_rows(std::move(rows), *row_layout_);
    batch.row_numbers.assign(numbers.begin(), numbers.end());
    return batch;
  }
  std::vector<Documents> rows(numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    for (const Segment& segment : packed_[numbers[i]]) {
      rows[i].push_back(dataset_->example(segment.row, segment.begin, segment.end));
    }
  }
  return collate(rows);
}

}  // namespace temper::data
