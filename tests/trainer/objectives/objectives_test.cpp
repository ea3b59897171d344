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
  for (const ObjectiveRow& row : objectives()) EXPECT_EQ(refusal({.kind = row.kind}), "");
  EXPECT_EQ(refusal({.kind = "stf"}), "objective.kind = \"stf\": not there; allowed: sft");
  EXPECT_EQ(refusal({.kind = "sft", .loss_type = "mse"}),
            "objective.loss_type: allowed for sft: nll, dft");
}

TEST(Sft, MetricsAreNamedAsTrlNamesThem) {
  EXPECT_EQ(build_objective({.kind = "sft"})->metric_names(),
            (std::vector<std::string>{"mean_token_accuracy", "entropy"}));
}

}  // namespace
}  // namespace temper::trainer
