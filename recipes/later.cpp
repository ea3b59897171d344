#include <sstream>

#include "recipes/objective_kinds.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

// Names, separated by blanks, of the reference libraries' fields (and product keys beside them)
// that belong to the objectives to come.
constexpr const char* kKeysOfLaterObjectives =
    "loss mask_replace_prob mlm_probability random_replace_prob";

// Fields of TRL 1.16.0's configs that are no keys of [objective].
std::vector<Later> fields_of_trl() {
  const std::string unneeded = "is not needed: ";
  return {
      {"objective.max_length", unneeded + "data.max_length says it"},
      {"objective.truncation_mode", unneeded + "rows are cut at the end, see data.on_long_row"},
      {"objective.padding_free", unneeded + "Temper never pads rows that are compared"},
      {"objective.reward_weights", unneeded + "each of [[objective.rewards]] has a weight"},
      {"objective.temperature", unneeded + "generation.temperature says it"},
      {"objective.top_p", unneeded + "generation.top_p says it"},
      {"objective.top_k", unneeded + "generation.top_k says it"},
      {"objective.min_p", unneeded + "generation.min_p says it"},
      {"objective.repetition_penalty", unneeded + "generation.repetition_penalty says it"},
      {"objective.generation_batch_size", unneeded + "objective.steps_per_generation says it"},
      {"objective.max_new_tokens", unneeded + "objective.max_completion_length says it"},
      {"objective.teacher_model_name_or_path", unneeded + "objective.teacher says it"},
      {"objective.response_length", unneeded + "objective.max_completion_length says it"},
      {"objective.num_ppo_epochs", unneeded + "objective.num_iterations says it"},
      {"objective.num_mini_batches", unneeded + "objective.steps_per_generation says it"},
      {"objective.value_model",
       "is not in this version: the value head stands on the policy's own last hidden state"},
      {"objective.kl_estimator", "is not in this version, which has k1: leave it out"},
      {"objective.num_generations_eval", "is not in this version: leave it out"},
  };
}

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
  const std::vector<Later> of_trl = fields_of_trl();
  rows.insert(rows.end(), of_trl.begin(), of_trl.end());
  std::istringstream names(kKeysOfLaterObjectives);
  for (std::string name; names >> name;) {
    rows.push_back({"objective." + name,
                    "belongs to an objective that is not in this version, which has only kind = " +
                        all_in_quotes(trained_kinds())});
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
