#include "trainer/loop.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <optional>

#include "data/io/json.h"
#include "parallel/collective_timeout.h"
#include "parallel/log.h"
#include "parallel/seed.h"
#include "parallel/trace.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/adapters.h"
#include "trainer/checkpoints.h"
#include "trainer/evaluate.h"
#include "trainer/failure.h"
#include "trainer/finish.h"
#include "trainer/optimizers/loss_scaler.h"
#include "trainer/optimizers/schedule.h"
#include "trainer/recorder.h"
#include "trainer/samples.h"
#include "trainer/step.h"
#include "trainer/trace_file.h"

namespace temper::trainer {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Dropout's masks are a function of the micro-batch's place, so that a resumed run, and another number of ranks, draws them again.
void begin_micro_batch(Run& run, int64_t step, int64_t micro_batch) {
  if (!run.adapters) return;
  const std::string purpose = "micro-batch/" + std::to_string(micro_batch);
  run.adapters->context().training = !run.recipe.objective.disable_dropout.value_or(false);
  run.adapters->context().seed = parallel::seed_of(run.recipe.run.seed, purpose, 0, step);
}

data::StepBatches next_batches(Run& run, int64_t step) {
  const parallel::TraceSpan span("data");
  return run.source->next(step);
}

void end_training(Run& run) {
  if (run.adapters) run.adapters->context().training = false;
}

RankAllocator* allocator(Run& run) { return run.adapters ? run.adapters->allocator() : nullptr; }

bool due(int64_t step, int64_t every, int64_t last) { return step == last || (every > 0 && step % every == 0); }

// `step` is the one under way, also when an exception ends it.
Outcome train_steps(Run& run, RunDirectory& directory, const std::function<int()>& stop_requested, int64_t& step) {
  const recipes::Recipe& recipe = run.recipe;
  const double base_lr = recipe.optimizer.lr.value();
  Recorder recorder(run, directory);
  std::optional<LossScaler> scaler;
  if (recipe.train.precision == recipes::Dtype::kFp16) scaler.emplace();
  const auto loss_scale = [&] { return scaler ? std::optional(scaler->scale()) : std::nullopt; };
  Checkpoints checkpoints(run, directory, recorder, scaler);
  TraceFile trace(run, directory);
  step = checkpoints.resume();

  const auto evaluate_now = [&](int64_t at) {
    const parallel::TraceSpan span("evaluation");
    const MetricLine evaluation = evaluate(run);
    checkpoints.judge(at, evaluation);
    if (!run.source->write_samples(directory, at)) write_samples(run, directory, at);
    return evaluation;
  };
  if (step == 0 && recipe.eval.at_start && run.datasets.eval) recorder.write(0, 0, 0, evaluate_now(0), loss_scale());
  if (PendingLine& line = checkpoints.pending_line(); line.due) {
    recorder.write(step, line.grad_norm, line.learning_rate, evaluate_now(step), loss_scale());
    line.due = false;
  }

  while (step < run.total_steps && !checkpoints.out_of_patience()) {
    trace.collect();
    const auto start = Clock::now();
    ++step;
    const parallel::TraceSpan step_span("step", step);
    const data::StepBatches batches = next_batches(run, step);
    // Of the loss's sum: what scales its mean.
    const auto loss_gradient = static_cast<float>(
        scaler ? scaler->scale() / std::max(1.0, coming_count(*run.objective, batches, *run.communicator)) : 1);
    StepSums sums = forward_backward(*run.model, *run.objective, *run.reducer, batches,
                                     [&](int64_t micro_batch) { begin_micro_batch(run, step, micro_batch); }, loss_gradient,
                                     run.recorded.get());
    end_training(run);
    sums.stopping = stop_requested() != 0 ? 1 : 0;
    checkpoints.report(sums);
    exchange(sums, *run.communicator);
    run.source->finished(sums);

    // Without anything to learn from (rollouts whose rewards are all equal) weights stay as they are.
    const bool learning = sums.count > 0;
    const double divisor = (learning ? sums.count : 1) * loss_gradient;  // of gradients
    if (RankAllocator* ranks = allocator(run)) sums.loss += ranks->regularize(divisor) / loss_gradient;
    const double norm = global_norm(run.reducer->segments(), run.mesh->group(parallel::Axis::kShard)) / divisor;
    const double lr = base_lr * schedule_factor(recipe.schedule, base_lr, step, run.total_steps);
    const bool overflowed = scaler && !std::isfinite(norm);
    if (scaler) scaler->update(overflowed);
    const int64_t hopeless = overflowed ? scaler->hopeless() : 0;
    if (std::isfinite(sums.loss) && std::isfinite(norm)) {
      const double scale = clip_factor(norm, recipe.optimizer.max_grad_norm) / divisor;
      const parallel::TraceSpan span("optimizer");
      if (learning) run.optimizer->step(lr, scale);
      const double gathering = learning && run.sharded ? run.sharded->gather_values() : 0;
      if (RankAllocator* ranks = allocator(run); ranks && learning) ranks->step(step, scale);
      recorder.add(sums, seconds_since(start), run.reducer->exposed_seconds() + gathering);
    } else if (recipe.train.on_nan == recipes::OnNan::kSkip || (overflowed && hopeless == 0)) {
      recorder.add_skipped();
    } else {
      checkpoints.complete();  // one that is still being written is from before the fault
      return {Ending::kFailed, dump_failure(run, directory, step, sums, norm, hopeless)};
    }

    if (run.reference) run.reference->follow(*run.model, step);

    const bool stopping = sums.stopping > 0 && step < run.total_steps;
    const bool evaluating = run.datasets.eval && due(step, recipe.eval.every, run.total_steps);
    if (evaluating && stopping) {
      // A signal leaves no time for an evaluation: the resumed run makes it, and the step's line, before it goes on.
      checkpoints.pending_line() = {.due = true, .grad_norm = norm, .learning_rate = lr};
    } else if (evaluating || due(step, recipe.log.every, run.total_steps)) {
      if (!evaluating) run.source->write_samples(directory, step);
      recorder.write(step, norm, lr, evaluating ? evaluate_now(step) : MetricLine{}, loss_scale());
    } else {
      recorder.show(step);
    }

    if (const std::string problem = checkpoints.progress(sums); !problem.empty()) return {Ending::kFailed, problem};
    if (stopping || due(step, recipe.checkpoint.every, run.total_steps) || checkpoints.best_is(step)) {
      checkpoints.begin(step);
    }
    if (stopping) {
      const std::string problem = checkpoints.complete();
      recorder.report();
      if (!problem.empty()) return {Ending::kFailed, problem};
      return {Ending::kStopped, "stopped at step " + std::to_string(step) + " of " + std::to_string(run.total_steps) +
                                    " with a complete checkpoint; the same command goes on from there"};
    }
  }
  const Outcome outcome = finish(run, directory, checkpoints, recorder, step);
  trace.collect();
  return outcome;
}

}  // namespace

Outcome train(Run& run, RunDirectory& directory, const std::function<int()>& stop_requested) {
  int64_t step = 0;
  try {
    return train_steps(run, directory, stop_requested, step);
  } catch (const parallel::CollectiveTimeout& hang) {
    throw RunError(dump_hang(run, directory, step, hang));
  }
}

}  // namespace temper::trainer
