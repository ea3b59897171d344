#include "trainer/objectives/registry.h"

#include <string>
#include <vector>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

constexpr ObjectiveRow kObjectives[] = {
    {"sft", build_sft, "Supervised fine-tuning: cross-entropy of the next token.",
     "arXiv:2203.02155; dft: arXiv:2508.05629"},
    {"dpo", build_dpo, "Direct preference optimization and its family: pairs against a reference.",
     "arXiv:2305.18290"},
    {"kto", build_kto, "Completions that are each good or bad, against a reference.",
     "arXiv:2402.01306"},
    {"orpo", build_orpo, "Pairs without a reference: likelihood and odds ratio.",
     "arXiv:2403.07691"},
    {"cpo", build_cpo, "Pairs without a reference: CPO, SimPO, AlphaPO.",
     "arXiv:2401.08417, arXiv:2405.14734, arXiv:2501.03884"},
    {"reward", build_reward_model, "A reward model: one score a text, from pairs.",
     "arXiv:2203.02155"},
    {"grpo", build_grpo, "Rewards of what the model says, compared within the answers to a prompt.",
     "arXiv:2402.03300; variants: grpo_losses.h"},
    {"rloo", build_rloo, "The same, each answer compared with the mean of the others.",
     "arXiv:2402.14740"},
    {"online_dpo", build_online_dpo, "Pairs of what the model says, chosen by reward.",
     "arXiv:2402.04792"},
    {"ppo", build_ppo, "Rewards of what the model says, against what a value head expects.",
     "arXiv:1707.06347, arXiv:1506.02438"},
    {"gkd", build_gkd, "A teacher's distribution of the next token, of rows or of sampled answers.",
     "arXiv:2306.13649"},
    {"distill", build_distill, "The same, with a temperature in the loss.", "arXiv:2306.13649"},
};

}  // namespace

std::vector<std::string> names_of(const recipes::NamesOrPattern& loss_type) {
  if (const auto* name = std::get_if<std::string>(&loss_type)) return {*name};
  return std::get<std::vector<std::string>>(loss_type);
}

std::string name_of_one(const std::optional<recipes::NamesOrPattern>& loss_type,
                        const char* otherwise) {
  if (!loss_type) return otherwise;
  const std::vector<std::string> names = names_of(*loss_type);
  if (names.size() != 1) throw UserError("objective.loss_type: one loss, not a list of them");
  return names.front();
}

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
