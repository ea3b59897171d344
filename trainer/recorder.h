#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/io/json.h"
#include "trainer/metrics/meter.h"
#include "trainer/step.h"

/// Means since the last line of metrics, and where lines go (rank 0: metrics.jsonl, TensorBoard, progress). A step stands in one line
/// only: what training and evaluation say of it is joined.
namespace temper::trainer {

struct Run;
struct RunDirectory;

class Recorder {
 public:
  Recorder(const Run& run, const RunDirectory& directory);
  ~Recorder();

  /// One finished step (sums over all ranks). `seconds`: its wall time.
  void add(const StepSums& sums, double seconds, double exposed_seconds);
  /// A step whose update was skipped because it was not finite.
  void add_skipped();
  /// The line of `step`: training means (none at step 0) joined with `evaluation`; starts the next means. `loss_scale`: of a run
  /// that has one, the next step's.
  void write(int64_t step, double grad_norm, double learning_rate, const MetricLine& evaluation, std::optional<double> loss_scale);
  /// Shows the progress line without writing anything.
  void show(int64_t step);
  /// Makes report.html anew (rank 0).
  void report() const;

  /// What a resumed run needs to go on as if it had never stopped.
  data::Json state() const;
  void restore(const data::Json& state);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace temper::trainer
