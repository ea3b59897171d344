#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "data/io/json.h"
#include "data/loader/loader.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/step.h"

namespace temper::trainer {

struct Run;
struct RunDirectory;

/// Where the micro-batches of a step come from. Every rank makes the same calls.
class StepSource {
 public:
  virtual ~StepSource() = default;
  /// This rank's micro-batches of `step` (from 1), which come in order. May use collectives.
  virtual data::StepBatches next(int64_t step) = 0;
  /// After the exchange, before the step is recorded: `sums` are of all ranks. Adds metrics of its
  /// own, the same on every rank.
  virtual void finished(StepSums& /*sums*/) {}
  /// Writes the step's completions where it has any (rank 0): then nothing else is sampled for
  /// show.
  virtual bool write_samples(const RunDirectory& /*directory*/, int64_t /*step*/) { return false; }
  /// What a resumed run needs to go on with the same bits, the same on every rank.
  virtual data::Json state() const { return nullptr; }
  virtual NamedTensors tensors() const { return {}; }
  virtual void restore(const data::Json& /*state*/, const NamedTensors& /*tensors*/) {}
};

/// The data loader's rows, or what models answer to them where the objective learns from that.
std::unique_ptr<StepSource> make_step_source(Run& run);

}  // namespace temper::trainer
