#include "recipes/objective_kinds.h"

#include <algorithm>
#include <utility>

#include "recipes/schema.h"

namespace temper::recipes {
namespace {

// TRL's learning rates.
constexpr double kSftRate = 2e-5;
constexpr double kRewardRate = 1e-4;
constexpr double kPreferenceRate = 1e-6;
// transformers'.
constexpr double kTrainerRate = 5e-5;

const std::vector<Value> kDpoLosses = {"sigmoid",  "hinge",        "ipo",         "exo_pair",
                                       "nca_pair", "robust",       "bco_pair",    "sppo_hard",
                                       "aot",      "aot_unpaired", "apo_zero",    "apo_down",
                                       "discopop", "sft",          "sigmoid_norm"};

// The reference model: Temper's ref_model, and TRL's TR-DPO.
std::vector<Field> with_reference(std::vector<Field> fields) {
  fields.insert(fields.end(), {{"ref_model", ""},
                               {"sync_ref_model", false},
                               {"ref_model_mixup_alpha", 0.6},
                               {"ref_model_sync_steps", 512}});
  return fields;
}

ObjectiveKind of_rows(const char* name, const char* meaning) {
  return {{name, std::string(meaning) + " In this version its rows are prepared, not trained on.", {}},
          kTrainerRate,
          {},
          false,
          1.0,
          true};
}

std::vector<ObjectiveKind> make_table() {
  const std::vector<std::string> of_pairs = {"eval_rewards/accuracies", "eval_rewards/margins"};
  std::vector<std::string> of_dpo = of_pairs;
  of_dpo.push_back("eval_mean_token_accuracy");
  return {
      {{"sft", "Supervised fine-tuning: the next token.",
        make_fields("", {{"loss_type", "nll", {"nll", "dft"}}})},
       kSftRate,
       {"eval_mean_token_accuracy"}},
      {{"dpo", "Preferences by the ratio to a reference model (arXiv:2305.18290).",
        with_reference(make_fields("loss_weights ld_alpha",
                                   {{"loss_type", std::vector<std::string>{"sigmoid"}, kDpoLosses},
                                    {"beta", 0.1},
                                    {"label_smoothing", 0.0},
                                    {"f_divergence_type", "reverse_kl"},
                                    {"f_alpha_divergence_coef", 0.5},
                                    {"discopop_tau", 0.05},
                                    {"use_weighting", false},
                                    {"precompute_ref_log_probs", false},
                                    {"disable_dropout", true}}))},
       kPreferenceRate,
       of_dpo},
      {{"kto", "Completions that are each good or bad, against a reference (arXiv:2402.01306).",
        with_reference(make_fields("", {{"loss_type", "kto", {"kto", "apo_zero_unpaired"}},
                                        {"beta", 0.1},
                                        {"desirable_weight", 1.0},
                                        {"undesirable_weight", 1.0},
                                        {"precompute_ref_log_probs", false},
                                        {"disable_dropout", true}}))},
       kPreferenceRate,
       {"eval_rewards/margins"}},
      {{"orpo", "Supervised fine-tuning with an odds ratio of preferences (arXiv:2403.07691).",
        make_fields("", {{"beta", 0.1}, {"disable_dropout", true}})},
       kPreferenceRate,
       of_pairs},
      {{"cpo", "Preferences without a reference; SimPO and AlphaPO (arXiv:2401.08417).",
        make_fields("", {{"loss_type", "sigmoid", {"sigmoid", "hinge", "ipo", "simpo", "alphapo"}},
                         {"beta", 0.1},
                         {"label_smoothing", 0.0},
                         {"cpo_alpha", 1.0},
                         {"simpo_gamma", 0.5},
                         {"alpha", 0.0},
                         {"disable_dropout", true}})},
       kPreferenceRate,
       of_pairs},
      {{"reward", "A reward model: one number for a text, from preferences.",
        make_fields("center_rewards_coefficient", {{"disable_dropout", true}})},
       kRewardRate,
       {"eval_accuracy", "eval_margin"}},
      {{"grpo", "Sampled completions, scored and compared in groups (arXiv:2402.03300).",
        with_reference(
            make_fields("steps_per_generation epsilon_high delta off_policy_mask_threshold",
                        {{"loss_type",
                          "dapo",
                          {"grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"}},
                         {"beta", 0.0},
                         {"num_generations", 8},
                         {"max_completion_length", 512},
                         {"num_iterations", 1},
                         {"epsilon", 0.2},
                         {"importance_sampling_level", "token"},
                         {"scale_rewards", "group"},
                         {"multi_objective_aggregation", "sum_then_normalize"},
                         {"zero_variance", "keep"},
                         {"mask_truncated_completions", false},
                         {"use_bias_correction_kl", true},
                         {"top_entropy_quantile", 1.0},
                         {"entropy_coef", 0.0},
                         {"use_adaptive_entropy", false},
                         {"entropy_coef_min", 0.0},
                         {"entropy_coef_max", 1.0},
                         {"entropy_coef_delta", 0.005},
                         {"entropy_target", 0.2},
                         {"sapo_temperature_neg", 1.05},
                         {"sapo_temperature_pos", 1.0},
                         {"vespo_k_pos", 2.0},
                         {"vespo_lambda_pos", 3.0},
                         {"vespo_k_neg", 3.0},
                         {"vespo_lambda_neg", 2.0},
                         {"disable_dropout", false}}))},
       kPreferenceRate,
       {"eval_reward"},
       true},
      {{"rloo", "REINFORCE with the other completions as baseline (arXiv:2402.14740).",
        with_reference(make_fields("steps_per_generation epsilon_high reward_clip_range",
                                   {{"beta", 0.05},
                                    {"num_generations", 2},
                                    {"max_completion_length", 512},
                                    {"num_iterations", 1},
                                    {"epsilon", 0.2},
                                    {"normalize_advantages", false},
                                    {"mask_truncated_completions", false},
                                    {"disable_dropout", false}}))},
       kPreferenceRate,
       {"eval_reward"},
       true},
      {{"online_dpo", "Pairs of sampled completions, the better scored chosen (arXiv:2402.04792).",
        make_fields("missing_eos_penalty", {{"loss_type", "sigmoid", {"sigmoid", "ipo"}},
                                            {"beta", 0.1},
                                            {"max_completion_length", 64},
                                            {"ref_model", ""},
                                            {"disable_dropout", true}})},
       kPreferenceRate,
       {"eval_reward", "eval_rewards/accuracies", "eval_rewards/margins"},
       true,
       0.9},
      {{"ppo", "Sampled completions and a value head that says what they lead to "
               "(arXiv:1707.06347).",
        make_fields("steps_per_generation missing_eos_penalty", {{"max_completion_length", 512},
                                                                 {"num_iterations", 4},
                                                                 {"gamma", 1.0},
                                                                 {"lam", 0.95},
                                                                 {"cliprange", 0.2},
                                                                 {"cliprange_value", 0.2},
                                                                 {"vf_coef", 0.1},
                                                                 {"kl_coef", 0.05},
                                                                 {"whiten_rewards", false},
                                                                 {"ref_model", ""},
                                                                 {"disable_dropout", true}})},
       kPreferenceRate,
       {"eval_reward"},
       true},
      {{"gkd", "What a teacher would say next, also to the student's own answers (arXiv:2306.13649).",
        make_fields("teacher", {{"beta", 0.5},
                                {"lmbda", 0.5},
                                {"seq_kd", false},
                                {"max_completion_length", 128},
                                {"disable_dropout", true}})},
       kSftRate,
       {"eval_mean_token_accuracy"},
       false,
       0.9},
      {{"distill", "The same with a temperature in the loss; on-policy with lmbda = 1.",
        make_fields("teacher", {{"beta", 1.0},
                                {"lmbda", 0.0},
                                {"seq_kd", false},
                                {"max_completion_length", 512},
                                {"disable_dropout", false}})},
       kPreferenceRate,
       {"eval_mean_token_accuracy"}},
      of_rows("classify", "Classes, or a number, of a text."),
      of_rows("embed", "Vectors of texts, from pairs and triplets."),
      of_rows("cross_encoder", "Scores of two texts read together."),
  };
}

std::vector<Kind> make_rewards() {
  return {
      {"accuracy", "1 where the completion's answer has the value of the row's answer, else 0.",
       make_fields("", {{"answer", "answer"}})},
      {"format", "1 where the whole completion has the form of the pattern, else 0.",
       make_fields("", {{"pattern", "think"}})},
      {"regex", "1 where the pattern is found in the completion, else 0.",
       make_fields("pattern", {})},
      {"length", "From 0 to -1 over the last `soft` tokens before `max` (arXiv:2503.14476).",
       make_fields("max soft", {})},
      {"repetition", "max_penalty times the share of n-grams that repeat another.",
       make_fields("", {{"ngram", 3}, {"max_penalty", -1.0}})},
      {"model", "The score of a reward model.", make_fields("path", {})},
      {"program", "What a program answers: one JSON object a line in, one number a line out.",
       make_fields("command", {{"workers", 1}, {"timeout", 10.0}})},
  };
}

template <class Owner>
void fill_in(Owner& owner, const std::vector<Field>& fields, const std::string& table,
             const KeyOf<Owner>* (*find)(std::string_view)) {
  for (const Field& field : fields) {
    const KeyOf<Owner>& key = *find(table + field.key);
    if (key.get(owner) == Value{}) key.set(owner, field.initial);
  }
}

void fill_in_reward(Reward& reward, int64_t max_completion_length) {
  const Kind* kind = find_kind(reward_kinds(), reward.kind);
  if (!kind) return;
  fill_in(reward, kind->fields, "", find_reward_key);
  if (reward.kind != "length") return;
  if (!reward.max) reward.max = max_completion_length;
  // The share of the paper: 4096 of 20480.
  if (!reward.soft) reward.soft = std::max<int64_t>(1, *reward.max / 5);
}

}  // namespace

const std::vector<ObjectiveKind>& objective_kinds() {
  static const std::vector<ObjectiveKind> table = make_table();
  return table;
}

const ObjectiveKind* find_objective_kind(std::string_view name) {
  const std::vector<ObjectiveKind>& kinds = objective_kinds();
  const auto found = std::find_if(kinds.begin(), kinds.end(),
                                  [&](const ObjectiveKind& kind) { return kind.name == name; });
  return found == kinds.end() ? nullptr : &*found;
}

std::vector<std::string> trained_kinds() {
  std::vector<std::string> names;
  for (const ObjectiveKind& kind : objective_kinds()) {
    if (!kind.rows_only) names.push_back(kind.name);
  }
  return names;
}

std::vector<std::string> objectives_with(std::string_view key) {
  std::vector<std::string> names;
  for (const ObjectiveKind& kind : objective_kinds()) {
    if (kind.field(key)) names.push_back(kind.name);
  }
  return names;
}

int64_t completions_of_prompt(const Objective& objective) {
  if (objective.kind == "online_dpo") return 2;
  if (objective.kind == "ppo" || objective.teacher) return 1;
  return objective.num_generations.value_or(objective.kind == "rloo" ? 2 : 8);
}

int64_t completions_of_row(const Objective& objective) {
  return objective.kind == "online_dpo" ? 2 : 1;
}

const std::vector<Kind>& reward_kinds() {
  static const std::vector<Kind> table = make_rewards();
  return table;
}

bool samples_completions(const Objective& objective) {
  return objective.lmbda.value_or(0) > 0 || objective.seq_kd.value_or(false);
}

void fill_in_objective(Recipe& recipe) {
  Objective& objective = recipe.objective;
  const ObjectiveKind* kind = find_objective_kind(objective.kind);
  if (!kind) return;
  // What "alphapo" stands for in TRL's CPOConfig.
  if (kind->name == "cpo" && objective.loss_type == NamesOrPattern("alphapo")) {
    objective.loss_type = "simpo";
    objective.cpo_alpha = 0.0;
  }
  fill_in(recipe, kind->fields, "objective.", find_key);
  if (kind->name == "dpo") {
    if (const auto* name = std::get_if<std::string>(&*objective.loss_type)) {
      objective.loss_type = std::vector<std::string>{*name};
    }
  }
  const bool distills = kind->field("teacher") != nullptr;
  const bool rows_of_sft = kind->name == "sft" || (distills && !samples_completions(objective));
  if (!rows_of_sft) recipe.data.packing = Packing::kNone;
  const bool samples = kind->samples || samples_completions(objective);
  if (!samples && kind->name != "distill") return;
  for (Reward& reward : objective.rewards) {
    fill_in_reward(reward, *objective.max_completion_length);
  }
  Generation& generation = recipe.generation;
  if (!generation.temperature) generation.temperature = kind->temperature;
  if (!generation.top_p) generation.top_p = 1.0;
  if (!generation.top_k) generation.top_k = 0;
  if (!generation.repetition_penalty) generation.repetition_penalty = 1.0;
}

}  // namespace temper::recipes
