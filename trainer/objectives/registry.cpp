#include "trainer/objectives/registry.h"

#include <string>
#include <vector>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

constexpr ObjectiveRow kObjectives[] = {
    {"sft", build_sft, "Supervised fine-tuning: cross-entropy of the next token.",
     "arXiv:2203.02155; dft: arXiv:2508.05629"},
    {"grpo", build_grpo, "Rewards of what the model says, compared within the answers to a prompt.",
     "arXiv:2402.03300; variants: grpo_losses.h"},
    {"rloo", build_rloo, "The same, each answer compared with the mean of the others.",
     "arXiv:2402.14740"},
};

}  // namespace

std::span<const ObjectiveRow> objectives() { return kObjectives; }

std::unique_ptr<Objective> build_objective(const recipes::Objective& objective) {
  std::vector<std::string> kinds;
  for (const ObjectiveRow& row : kObjectives) {
    if (objective.kind == row.kind) return row.build(objective);
    kinds.push_back(row.kind);
  }
  throw UserError("objective.kind = \"" + objective.kind +
                  "\": not there; allowed: " + join(kinds));
}

}  // namespace temper::trainer
