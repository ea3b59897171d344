#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "recipes/kinds.h"
#include "recipes/recipe.h"

/// Which keys of [objective] belong to which kind, with the defaults of TRL 1.16.0's configs, and
/// which keys of [[objective.rewards]] belong to which reward: the one place that says so.
/// tests/parity holds it against TRL.
///
/// To add a kind: a row in objective_kinds.cpp; its new fields are members of Objective and rows in
/// objective_rows.cpp.
namespace temper::recipes {

struct ObjectiveKind : Kind {
  double learning_rate;              // of full fine-tuning
  std::vector<std::string> metrics;  // of an evaluation, besides eval_loss: the greater the better
  bool samples = false;              // completions are sampled and scored by rewards
  double temperature = 1.0;          // of sampling, unless generation.temperature says another
  bool rows_only = false;            // this version prepares its rows, and does not train it
};

/// The kinds of this version, in the order of the page.
const std::vector<ObjectiveKind>& objective_kinds();
/// nullptr: no kind of this version.
const ObjectiveKind* find_objective_kind(std::string_view name);
/// Those that are trained, not rows_only.
std::vector<std::string> trained_kinds();
/// The kinds that have the key, with or without "objective.".
std::vector<std::string> objectives_with(std::string_view key);

/// What is sampled for a prompt at once: num_generations, a pair (online_dpo), one (ppo, gkd, distill).
int64_t completions_of_prompt(const Objective& objective);
/// Of these completions, how many are one row of batch.*: of online_dpo a pair.
int64_t completions_of_row(const Objective& objective);

const std::vector<Kind>& reward_kinds();

/// gkd and distill, with what they have filled in: some completions are sampled, from the student or
/// from the teacher. Else rows are learnt as sft learns them.
bool samples_completions(const Objective& objective);

/// What each kind has in [objective] and [[objective.rewards]], where unset, and what goes with it:
/// [generation] of the kinds that sample, data.packing of those whose rows are not sft's. dpo's
/// loss_type becomes a list, cpo's "alphapo" what it stands for.
void fill_in_objective(Recipe& recipe);

}  // namespace temper::recipes
