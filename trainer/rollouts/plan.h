#pragma once

#include <cstdint>

#include "recipes/recipe.h"

namespace temper::trainer {

/// How steps and generation batches interlock; numbers only. A generation batch is what is sampled
/// at once and whose rewards are compared: the prompts of `slices` consecutive steps. Its slices
/// are trained on in turn, `iterations` times, so that it lasts slices * iterations steps. Steps
/// count from 1.
struct RolloutPlan {
  int64_t group = 1;        // completions a prompt
  int64_t completions = 1;  // of a step, over all ranks
  int64_t row = 1;          // completions that are one row of batch.*
  int64_t slices = 1;
  int64_t iterations = 1;  // num_iterations

  int64_t prompts() const { return completions / group; }  // of a step
  int64_t steps() const { return slices * iterations; }    // that share a generation batch
  int64_t batch_of(int64_t step) const { return (step - 1) / steps(); }
  int64_t slice_of(int64_t step) const { return (step - 1) % slices; }
  bool generates(int64_t step) const { return (step - 1) % steps() == 0; }
  /// A generation batch is used up by the step that made it: its policy is the one that is trained.
  bool aligned() const { return steps() == 1; }
};

/// objective.steps_per_generation counts micro-batches, as TRL's does: it is a multiple of those of
/// a step. Throws UserError when it is not, or when the prompts of a step do not divide among
/// ranks.
RolloutPlan rollout_plan(const recipes::Recipe& recipe, int ranks);

}  // namespace temper::trainer
