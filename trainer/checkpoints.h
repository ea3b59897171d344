#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "data/io/json.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/metrics/meter.h"
#include "trainer/optimizers/loss_scaler.h"
#include "trainer/step.h"

/// The run's side of checkpoints: what is saved, when a pending one is complete on every rank, which is best.
namespace temper::trainer {

struct Run;
struct RunDirectory;
class Recorder;

/// A line of metrics that the run had to leave unwritten because a signal came where an evaluation was due.
struct PendingLine {
  bool due = false;
  double grad_norm = 0;
  double learning_rate = 0;
};

class Checkpoints {
 public:
  /// `loss_scaler`: that of the run, where it has one.
  Checkpoints(Run& run, const RunDirectory& directory, Recorder& recorder, std::optional<LossScaler>& loss_scaler);
  ~Checkpoints();

  /// Loads what the directory resumes from; returns its step (0: a fresh start).
  int64_t resume();
  /// Takes an evaluation into account: best step and patience.
  void judge(int64_t step, const MetricLine& evaluation);
  bool best_is(int64_t step) const;
  bool out_of_patience() const;
  PendingLine& pending_line();

  /// Starts saving `step` (completes an earlier one first). Collective.
  void begin(int64_t step);
  /// Before the step's exchange: says whether this rank's file is on disk, or failed.
  void report(StepSums& sums);
  /// After it: rank 0 commits what all have written. Returns what went wrong on any rank, or "".
  std::string progress(const StepSums& sums);
  /// Waits for the pending checkpoint on all ranks and commits it. Collective. Returns what went wrong, or "".
  std::string complete();
  /// Float32 weights of the model by their names, shaped as `values`, from the newest one, which is
  /// complete.
  NamedTensors weights(const NamedTensors& values) const;
  /// The newest step that is saved or being saved.
  int64_t newest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::trainer
