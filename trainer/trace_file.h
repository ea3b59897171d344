#pragma once

#include <memory>

namespace temper::trainer {

struct Run;
struct RunDirectory;

/// trace.json of the run directory (log.trace): what parallel/trace.h records on every rank, in one
/// file that rank 0 writes; times are rank 0's. The first 100 steps of a start, which replaces what
/// an earlier one left. A killed run leaves whole events without the closing bracket, which the
/// format allows.
class TraceFile {
 public:
  /// Starts recording where the recipe asks for it. Collective.
  TraceFile(const Run& run, const RunDirectory& directory);
  ~TraceFile();

  /// Between two steps: takes what all ranks have recorded. Collective while recording.
  void collect();

 private:
  struct State;
  std::unique_ptr<State> state_;  // null: not recording
};

}  // namespace temper::trainer
