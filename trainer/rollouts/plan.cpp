#include "trainer/rollouts/plan.h"

#include <string>

#include "recipes/diagnostic.h"
#include "recipes/objective_kinds.h"

namespace temper::trainer {

RolloutPlan rollout_plan(const recipes::Recipe& recipe, int ranks) {
  const recipes::Objective& objective = recipe.objective;
  const int64_t row = recipes::completions_of_row(objective);
  RolloutPlan plan{.group = recipes::completions_of_prompt(objective),
                   .completions = recipe.batch.global * row,
                   .row = row,
                   .iterations = objective.num_iterations.value_or(1)};
  if (plan.completions % plan.group != 0 || plan.prompts() % ranks != 0) {
    throw UserError("batch.global = " + std::to_string(recipe.batch.global) +
                    ": must be a multiple of objective.num_generations x ranks = " +
                    std::to_string(plan.group) + " x " + std::to_string(ranks) +
                    " (the completions of a prompt are sampled on one rank)");
  }
  const int64_t accumulation = recipe.batch.global / (recipe.batch.micro * ranks);
  const int64_t wanted = objective.steps_per_generation.value_or(accumulation);
  if (wanted % accumulation != 0) {
    throw UserError("objective.steps_per_generation = " + std::to_string(wanted) +
                    ": counts micro-batches, of which a step has " + std::to_string(accumulation) +
                    " (batch.global / (batch.micro x ranks)): must be a multiple of that");
  }
  plan.slices = wanted / accumulation;
  return plan;
}

}  // namespace temper::trainer
