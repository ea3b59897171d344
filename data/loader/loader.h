#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/io/json.h"
#include "data/loader/batch.h"
#include "data/loader/collate.h"
#include "recipes/recipe.h"

/// Rows to this rank's micro-batches: step k takes `global` sequences (rows, or packed rows), of
/// which micro-batch i of rank r is the run of `micro` at (r * accumulation + i) * micro. What a
/// step holds never depends on the number of ranks.
namespace temper::data {

class TokenDataset;  // data/shards/token_dataset.h: random access to tokenized examples

struct LoaderOptions {
  int64_t global = 64;  // sequences a step over all ranks
  int64_t micro = 4;    // sequences a micro-batch
  int64_t rank = 0;     // of the data-parallel group
  int64_t ranks = 1;
  bool shuffle = true;
  bool drop_last = false;
  bool group_by_length = false;  // steps of sequences of similar length, see step_order.h
  int64_t seed = 42;
  int64_t max_length = 1024;
  recipes::Packing packing = recipes::Packing::kBfd;
  int64_t packing_window = 100000;        // rows packed together, see pack.h
  std::optional<RowLayout> row_layout{};  // set: batches of collate_rows(), nothing is packed
};

/// One optimizer step of this rank: its micro-batches (fewer or none in a short last step).
struct StepBatches {
  std::vector<Batch> micro_batches;
};

class Loader {
 public:
  virtual ~Loader() = default;
  /// The batches of global step `step` (from 0, counted over epochs). Prefetches step + 1 on a
  /// thread of its own.
  virtual StepBatches step(int64_t step) = 0;
  /// What a resumed run needs to go on after the last step() with the same batches, the same on
  /// every rank; null where the step's number is enough.
  virtual Json state() { return nullptr; }
  /// Before the first step().
  virtual void restore(const Json& /*state*/) {}
};

/// Of a prepared data set. What step k holds is a pure function of (recipe, seed, k): epoch e
/// visits the sequences in the order of a keyed permutation (shuffle) or in order, so that the
/// position is (epoch, step in epoch) and is restored in O(1).
class DataLoader : public Loader {
 public:
  DataLoader(std::shared_ptr<const TokenDataset> dataset, const LoaderOptions& options);
  ~DataLoader() override;

  int64_t sequences() const;        // a pass
  int64_t steps_per_epoch() const;  // ceil(sequences / global), floor with drop_last
  StepBatches step(int64_t step) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::data
