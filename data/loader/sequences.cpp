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

int64_t Sequences::length(int64_t number) const {
  if (row_layout_) return dataset_->length(number);
  int64_t tokens = 0;
  for (const Segment& segment : packed_[number]) tokens += segment.end - segment.begin;
  return tokens;
}

Batch Sequences::batch(std::span<const int64_t> numbers) const {
  std::vector<SequencePlace> places;
  for (const int64_t number : numbers) places.push_back({this, number});
  return batch_of(places);
}

Batch batch_of(std::span<const SequencePlace> places) {
  if (const auto& row_layout = places.front().sequences->row_layout_) {
    std::vector<TokenizedRow> rows;
    std::vector<int64_t> numbers;
    for (const auto& [sequences, number] : places) {
      rows.push_back(sequences->dataset_->row(number));
      numbers.push_back(number);
    }
    Batch batch = collate_rows(std::move(rows), *row_layout);
    batch.row_numbers = std::move(numbers);
    return batch;
  }
  std::vector<Documents> rows(places.size());
  for (size_t i = 0; i < places.size(); ++i) {
    const auto& [sequences, number] = places[i];
    for (const Segment& segment : sequences->packed_[number]) {
      rows[i].push_back(sequences->dataset_->example(segment.row, segment.begin, segment.end));
    }
  }
  return collate(rows);
}

}  // namespace temper::data
