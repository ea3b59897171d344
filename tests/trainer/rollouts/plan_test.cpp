#include "trainer/rollouts/plan.h"

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

recipes::Recipe recipe_of(int64_t global, int64_t micro, int64_t group) {
  recipes::Recipe recipe;
  recipe.objective.kind = "grpo";
  recipe.objective.num_generations = group;
  recipe.batch = {.global = global, .micro = micro};
  return recipe;
}

std::string refusal(const recipes::Recipe& recipe, int ranks) {
  try {
    rollout_plan(recipe, ranks);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(RolloutPlan, MakesAGenerationBatchForEveryStepUnlessTold) {
  const RolloutPlan plan = rollout_plan(recipe_of(32, 4, 8), 2);
  EXPECT_EQ(plan.prompts(), 4);
  EXPECT_TRUE(plan.aligned());
  for (int64_t step = 1; step <= 3; ++step) {
    EXPECT_TRUE(plan.generates(step));
    EXPECT_EQ(plan.batch_of(step), step - 1);
    EXPECT_EQ(plan.slice_of(step), 0);
  }
}

TEST(RolloutPlan, TrainsOnSlicesInTurnAndThenAgain) {
  recipes::Recipe recipe = recipe_of(16, 4, 8);  // 4 micro-batches a step of one rank
  recipe.objective.steps_per_generation = 8;
  recipe.objective.num_iterations = 2;
  const RolloutPlan plan = rollout_plan(recipe, 1);
  EXPECT_FALSE(plan.aligned());
  std::vector<int64_t> batches, slices, generating;
  for (int64_t step = 1; step <= 6; ++step) {
    batches.push_back(plan.batch_of(step));
    slices.push_back(plan.slice_of(step));
    generating.push_back(plan.generates(step));
  }
  EXPECT_EQ(batches, (std::vector<int64_t>{0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(slices, (std::vector<int64_t>{0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(generating, (std::vector<int64_t>{1, 0, 0, 0, 1, 0}));
}

TEST(RolloutPlan, RefusesWhatDoesNotDivide) {
  EXPECT_EQ(
      refusal(recipe_of(24, 4, 8), 2),
      "batch.global = 24: must be a multiple of objective.num_generations x ranks = 8 x 2 (the "
      "completions of a prompt are sampled on one rank)");
  recipes::Recipe recipe = recipe_of(16, 4, 8);
  recipe.objective.steps_per_generation = 6;
  EXPECT_EQ(refusal(recipe, 1),
            "objective.steps_per_generation = 6: counts micro-batches, of which a step has 4 "
            "(batch.global / (batch.micro x ranks)): must be a multiple of that");
}

}  // namespace
}  // namespace temper::trainer
