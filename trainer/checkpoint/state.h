#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/io/json.h"
#include "trainer/checkpoint/safetensors.h"

/// Checkpoints of a run: checkpoints/step-000200/ with one safetensors file a rank (its share of
/// weights and states), state.json and, last, manifest.json with sizes and checksums (XXH3). Only a
/// directory with a manifest whose files agree is a checkpoint. What is sharded is written in pieces
/// (checkpoint/piece.h), each by a rank that has it: a full state is nowhere gathered.
///
/// Writing: every rank snapshots its share (a bounded copy), a background thread writes
/// `rank-00003.safetensors` into step-000200.partial/; when all ranks say they are done (the loop's
/// own per-step exchange carries that), rank 0 writes the manifest and renames. Nothing waits in a
/// collective.
namespace temper::trainer {

/// Everything that a run is, besides its data: named float32/bf16 tensors (views into the live run)
/// and a small JSON object.
struct TrainState {
  NamedTensors tensors;  // "weights/<name>", "optimizer/exp_avg/<name>", ...
  data::Json scalars;    // step, num_tokens, running sums, best metric, recipe, ...
};

class CheckpointWriter {
 public:
  /// `directory` is <run>/checkpoints. Whole tensors are shared out among `ranks` by bytes; every
  /// rank computes the same plan. Pieces are this rank's to write.
  CheckpointWriter(std::filesystem::path directory, int rank, int ranks, bool async);
  ~CheckpointWriter();

  /// Starts writing this rank's share of `state` as step `step`. Waits first for an earlier one
  /// that is still being written. Returns after the snapshot (async) or when this rank's file is on
  /// disk.
  void begin(int64_t step, const TrainState& state);
  /// True once this rank's file of the pending step is on disk. Rethrows what the writing thread
  /// threw.
  bool rank_done();
  void wait();
  std::optional<int64_t> pending() const;
  /// Rank 0, when all ranks are done: manifest, rename, then removal of what `keep` and `best_step`
  /// do not protect.
  void commit(int64_t keep, std::optional<int64_t> best_step);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct FoundCheckpoint {
  std::filesystem::path directory;
  int64_t step = 0;
  /// Newer checkpoint directories that were passed over because they are damaged, with the reason.
  std::vector<std::string> damaged;
};

/// The newest complete checkpoint in <run>/checkpoints; unset when there is none. Sizes and
/// checksums are verified. Throws UserError when there are checkpoint directories but none is
/// usable.
std::optional<FoundCheckpoint> find_checkpoint(const std::filesystem::path& checkpoints);

/// Verifies one checkpoint directory; returns the reason it cannot be used, or "".
std::string checkpoint_damage(const std::filesystem::path& directory);

/// Fills `tensors`, contiguous, in place and returns the scalars. Whole tensors and pieces
/// (checkpoint/piece.h) are made of whichever any number of ranks wrote. Throws UserError on a tensor that is missing or misshapen.
data::Json load_checkpoint(const std::filesystem::path& directory, const NamedTensors& tensors);

/// The names and tensors of a checkpoint (for export, inspect): opens all rank files.
NamedTensors read_checkpoint(const std::filesystem::path& directory);

}  // namespace temper::trainer
