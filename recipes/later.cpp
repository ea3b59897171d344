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

// Fields of the configs of PEFT 0.21.2 that are no keys of [peft].
std::vector<Later> fields_of_peft() {
  const std::string unneeded = "is not needed: ";
  const std::string from_config = unneeded + "the model's config.json says it";
  const std::string own_tokenizer = unneeded + "the tokenizer of model.path is used";
  const auto later = [](const std::string& what) {
    return what + " not in this version: leave it out";
  };
  return {
      {"peft.peft_type", unneeded + "peft.method says it"},
      {"peft.task_type", unneeded + "objective.kind says it"},
      {"peft.base_model_name_or_path", unneeded + "model.path says it"},
      {"peft.revision", unneeded + "model.path says it, as \"org/name@revision\""},
      {"peft.auto_mapping", unneeded + "Temper writes it into adapter_config.json"},
      {"peft.peft_version", unneeded + "Temper writes it into adapter_config.json"},
      {"peft.inference_mode", unneeded + "`train` trains the adapter, `eval` does not"},
      {"peft.fan_in_fan_out", unneeded + "Temper knows which layers store their weight transposed"},
      {"peft.token_dim", from_config},
      {"peft.num_attention_heads", from_config},
      {"peft.num_layers", from_config},
      {"peft.num_transformer_submodules", from_config},
      {"peft.tokenizer_name_or_path", own_tokenizer},
      {"peft.tokenizer_kwargs", own_tokenizer},
      {"peft.eva_config.label_mask_value",
       unneeded + "tokens that are not supervised are always -100"},
      {"peft.megatron_config", later("adapters of Megatron modules are")},
      {"peft.megatron_core", later("adapters of Megatron modules are")},
      {"peft.layer_replication", later("replicated layers are")},
      {"peft.target_parameters",
       later("adapters of raw parameters (the experts of a mixture) are")},
      {"peft.ensure_weight_tying", later("adapters of tied weights are")},
      {"peft.runtime_config", later("offloading while an adapter is initialised is")},
      {"peft.use_qalora", later("QA-LoRA is")},
      {"peft.qalora_group_size", later("QA-LoRA is")},
      {"peft.use_bdlora", later("BD-LoRA is")},
      {"peft.arrow_config", later("Arrow is")},
      {"peft.corda_config", later("CorDA is")},
      {"peft.lora_ga_config", later("LoRA-GA is")},
      {"peft.velora_config", later("VeLoRA is")},
      {"peft.monteclora_config", later("MonteCLoRA is")},
      {"peft.alora_invocation_tokens", later("aLoRA is")},
      {"peft.kasa_config", later("KaSA is")},
  };
}

std::vector<Later> make_table() {
  std::vector<Later> rows = fields_of_peft();
  rows.push_back({"objective.rewards",
                  "rewards are not in this version, which has only objective.kind = \"sft\""});
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
