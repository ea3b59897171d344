#pragma once

#include <functional>
#include <string>

#include "trainer/run.h"
#include "trainer/run_directory.h"

/// The training loop: batches, loss, backward, gradient sync, update, metrics, checkpoints, evaluation.
namespace temper::trainer {

enum class Ending {
  kFinished,   // all steps done, model exported
  kStopped,    // a signal: complete checkpoint written (exit code 75)
  kFailed,     // NaN, a full disk, ...: `message` says what; the last complete checkpoint is intact
};

struct Outcome {
  Ending ending = Ending::kFinished;
  std::string message;
};

/// Runs from the step that `directory` resumes at to the last one. Every rank returns the same ending: what one rank finds (a
/// signal, a NaN, a full disk) travels in the exchange that each step makes anyway. An exception means that this rank
/// alone failed and the others may be waiting for it.
/// `stop_requested` is asked once a step; non-zero ends the run after that step with a checkpoint.
Outcome train(Run& run, RunDirectory& directory, const std::function<int()>& stop_requested);

}  // namespace temper::trainer
