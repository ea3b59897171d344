#include <sstream>

#include "recipes/schema.h"

namespace temper::recipes {
namespace {

// Names, separated by blanks, of TRL's configuration fields (and product keys beside them) that
// change the losses to come.
constexpr const char* kKeysOfLaterObjectives =
    "alpha beta center_rewards_coefficient cpo_alpha delta desirable_weight disable_dropout "
    "discopop_tau entropy_coef epsilon epsilon_high f_alpha_divergence_coef f_divergence_type "
    "importance_sampling_level label_smoothing ld_alpha lmbda loss loss_weights mask_replace_prob "
    "mask_truncated_completions max_completion_length missing_eos_penalty mlm_probability "
    "multi_objective_aggregation normalize_advantages num_generations num_iterations "
    "off_policy_mask_threshold precompute_ref_log_probs random_replace_prob ref_model "
    "ref_model_mixup_alpha ref_model_sync_steps reward_clip_range reward_weights "
    "sapo_temperature_neg sapo_temperature_pos scale_rewards seq_kd simpo_gamma "
    "steps_per_generation sync_ref_model teacher top_entropy_quantile undesirable_weight "
    "use_bias_correction_kl use_weighting vespo_k_neg vespo_k_pos vespo_lambda_neg "
    "vespo_lambda_pos zero_variance";

std::vector<Later> make_table() {
  std::vector<Later> rows = {
      {"peft",
       "adapters are not in this version, which trains the weights themselves: leave [peft] out"},
      {"objective.rewards",
       "rewards are not in this version, which has only objective.kind = \"sft\""},
  };
  std::istringstream names(kKeysOfLaterObjectives);
  for (std::string name; names >> name;) {
    rows.push_back({"objective." + name,
                    "belongs to an objective that is not in this version, which has only kind = "
                    "\"sft\" (its keys: kind, loss_type)"});
  }
  return rows;
}

}  // namespace

const Later* find_later(std::string_view name) {
  static const std::vector<Later> table = make_table();
  for (const Later& later : table) {
    if (later.name == name) return &later;
  }
  return nullptr;
}

}  // namespace temper::recipes
