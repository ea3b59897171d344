#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "data/loader/batch.h"
#include "data/loader/loader.h"
#include "data/loader/pack.h"

namespace temper::data {

/// What batches are made of: rows, or packed rows, of a data set, numbered 0 .. size()-1.
/// Immutable; from any thread.
class Sequences {
 public:
  Sequences(std::shared_ptr<const TokenDataset> dataset, const LoaderOptions& options);
  int64_t size() const;
  /// Tokens of sequence `number`, of all its documents.
  int64_t length(int64_t number) const;
  /// The micro-batch of these sequences, in this order.
  Batch batch(std::span<const int64_t> numbers) const;

 private:
  friend Batch batch_of(std::span<const struct SequencePlace> places);

  std::shared_ptr<const TokenDataset> dataset_;
  std::optional<RowLayout> row_layout_;
  PackedRows packed_;  // empty where row_layout_ is set
};

struct SequencePlace {
  const Sequences* sequences;
  int64_t number;
};

/// The micro-batch of sequences of several data sets with the same options.
Batch batch_of(std::span<const SequencePlace> places);

}  // namespace temper::data
