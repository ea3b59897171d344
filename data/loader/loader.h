#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/loader/batch.h"
#include "data/loader/collate.h"
#include "recipes/recipe.h"

/// Rows to this rank's micro-batches. What step k holds is a pure function of (recipe, seed, k):
/// with N sequences numbered 0 .. N-1 (rows, or packed rows), epoch e visits them in the order of a
/// keyed permutation (shuffle) or in order; step k of the epoch takes `global` of them, micro-batch
/// i of rank r is the run of `micro` sequences at (r * accumulation + i) * micro of that step. So
/// the position is (epoch, step in epoch) and is restored in O(1).
namespace temper::data {

class TokenDataset;  // data/shards/token_dataset.h: random access to tokenized examples

struct LoaderOptions {
  int64_t global = 64;  // sequences a step over all ranks
  int64_t micro = 4;    // sequences a micro-batch
  int64_t rank = 0;     // of the data-parallel group
  int64_t ranks = 1;
  bool shuffle = true;
  bool drop_last = false;
  int64_t seed = 42;
  int64_t max_length = 1024;
  recipes::Packing packing = recipes::Packing::kBfd;
  int64_t packing_window = 100000;  // rows packed together, see pack.h
  std::optional<RowLayout> row_layout{};  // set: batches of collate_rows(), nothing is packed
};

/// One optimizer step of this rank: its micro-batches (fewer or none in a short last step) and the
/// sizes of the whole step.
struct StepBatches {
  std::vector<Batch> micro_batches;
};

class DataLoader {
 public:
  DataLoader(std::shared_ptr<const TokenDataset> dataset, const LoaderOptions& options);
  ~DataLoader();

  int64_t sequences() const;        // a pass
  int64_t steps_per_epoch() const;  // ceil(sequences / global), floor with drop_last
  /// The batches of global step `step` (from 0, counted over epochs). Prefetches step + 1 on a
  /// thread of its own.
  StepBatches step(int64_t step);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::data
