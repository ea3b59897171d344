#include <string>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "trainer/objectives/registry.h"

namespace temper::trainer {
namespace {

std::string refusal(const recipes::Objective& objective) {
  try {
    build_objective(objective);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Objectives, AreFoundByKindAndRefusedWithWhatThereIs) {
  recipes::Objective objective;
  for (const ObjectiveRow& row : objectives()) {
    objective.kind = row.kind;
    EXPECT_EQ(refusal(objective), "");
  }
  objective.kind = "stf";
  EXPECT_TRUE(refusal(objective).starts_with("objective.kind = \"stf\": not there; allowed: sft, dpo"))
      << refusal(objective);
  objective = {};
  objective.loss_type = "mse";
  EXPECT_EQ(refusal(objective),
            "objective.loss_type: allowed for sft: nll, dft");
}

TEST(Sft, MetricsAreNamedAsTrlNamesThem) {
  EXPECT_EQ(build_objective({})->metric_names(),
            (std::vector<std::string>{"mean_token_accuracy", "entropy"}));
}

}  // namespace
}  // namespace temper::trainer
