#include <algorithm>
#include <numeric>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/judgement.h"
#include "recipes/objective_kinds.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"
#include "recipes/validate.h"

namespace temper::recipes {
namespace {

using Keys = std::vector<std::string>;

std::string text(int64_t value) { return std::to_string(value); }

std::string of_kind(const ObjectiveKind& kind) {
  return "objective.kind = " + in_quotes(kind.name);
}

// ---- what belongs to the kind ------------------------------------------------------------------

void judge_fields(Judgement& judge, const ObjectiveKind& kind) {
  for (const Key& key : keys()) {
    if (!key.name.starts_with("objective.") || key.name == "objective.kind") continue;
    const Value value = key.get(judge.recipe);
    judge.require(
        value == Value{} || kind.field(key.name), {key.name},
        "belongs to " + listed(objectives_with(key.name), " and ") + ", not to " + of_kind(kind));
  }
}

void judge_loss_type(Judgement& judge, const ObjectiveKind& kind) {
  const std::optional<NamesOrPattern>& written = judge.recipe.objective.loss_type;
  const Field* field = kind.field("loss_type");
  if (!written || !field) return;
  const auto* list = std::get_if<Keys>(&*written);
  const Keys names = list ? *list : Keys{std::get<std::string>(*written)};
  Keys allowed;
  for (const Value& value : field->allowed) allowed.push_back(std::get<std::string>(value));
  for (const std::string& name : names) {
    const bool known = std::find(allowed.begin(), allowed.end(), name) != allowed.end();
    const std::string nearest = known ? "" : nearest_name(name, allowed);
    judge.require(known, {"objective.loss_type"},
                  (list ? in_quotes(name) + " is not" : "must be") + " one of " +
                      all_in_quotes(allowed) + " with " + of_kind(kind) +
                      (nearest.empty() ? "" : " (nearest: " + in_quotes(nearest) + ")"));
  }
  judge.require(!list || kind.name == "dpo", {"objective.loss_type"},
                "must be one name: only dpo takes a list");
}

// ---- rules of a kind, with TRL's defaults filled in ---------------------------------------------

/// The recipe as it will run, beside what was written.
struct Filled {
  Judgement& judge;
  const Recipe& recipe;
  const ObjectiveKind& kind;
  std::set<std::string> losses;  // of loss_type

  const Objective& objective() const { return recipe.objective; }
  bool has_loss(const Keys& names) const {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return losses.contains(name); });
  }
  /// Keys that do nothing beside `cause` must have their defaults.
  void require_idle(const Keys& idle, const std::string& cause) const {
    for (const std::string& key : idle) {
      const std::string name = "objective." + key;
      judge.require(find_key(name)->get(recipe) == kind.field(key)->initial, {name}, cause);
    }
  }
  /// Keys of losses that are not among loss_type.
  void require_loss_for(const Keys& idle, const Keys& names) const {
    if (has_loss(names)) return;
    require_idle(idle, "has no effect: it belongs to objective.loss_type = " +
                           one_of({names.begin(), names.end()}));
  }
};

void judge_reference(const Filled& filled) {
  const Objective& objective = filled.objective();
  if (!*objective.sync_ref_model) {
    filled.require_idle({"ref_model_mixup_alpha", "ref_model_sync_steps"},
                        no_effect("objective.sync_ref_model = false"));
    return;
  }
  const bool adapter = !filled.recipe.peft.method.empty() || !filled.recipe.model.adapter.empty();
  filled.judge.require(!adapter, {"objective.sync_ref_model"},
                       "cannot go with an adapter, whose reference is the model without it");
  filled.judge.require(!objective.precompute_ref_log_probs.value_or(false),
                       {"objective.sync_ref_model", "objective.precompute_ref_log_probs"},
                       "cannot go with objective.precompute_ref_log_probs: the reference moves");
}

void judge_dpo(const Filled& filled) {
  const Objective& objective = filled.objective();
  Judgement& judge = filled.judge;
  const double smoothing = *objective.label_smoothing;
  if (objective.loss_weights) {
    const size_t losses = std::get<Keys>(*objective.loss_type).size();
    judge.require(objective.loss_weights->size() == losses,
                  {"objective.loss_weights", "objective.loss_type"},
                  "needs a weight for each of the " + std::to_string(losses) +
                      " names of objective.loss_type");
  }
  filled.require_loss_for({"label_smoothing"}, {"exo_pair", "robust", "aot", "aot_unpaired"});
  filled.require_loss_for({"discopop_tau"}, {"discopop"});
  judge.require(!filled.has_loss({"exo_pair"}) || smoothing > 0,
                {"objective.label_smoothing", "objective.loss_type"},
                "must be above 0 with objective.loss_type = \"exo_pair\" (typical: 0.001)");
  judge.require(!filled.has_loss({"robust"}) || smoothing < 0.5,
                {"objective.label_smoothing", "objective.loss_type"},
                "must be below 0.5 with objective.loss_type = \"robust\"");
  static const std::set<std::string> by_divergence = {
      "sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"};
  for (const std::string& loss : filled.losses) {
    judge.require(objective.f_divergence_type == "reverse_kl" || by_divergence.contains(loss),
                  {"objective.f_divergence_type", "objective.loss_type"},
                  "cannot go with objective.loss_type = " + in_quotes(loss) +
                      ", which is defined for \"reverse_kl\" alone");
  }
  if (objective.f_divergence_type != "alpha_divergence") {
    filled.require_idle(
        {"f_alpha_divergence_coef"},
        no_effect("objective.f_divergence_type = " + in_quotes(*objective.f_divergence_type)));
  }
  judge.require(!*objective.use_weighting || !filled.has_loss({"aot", "aot_unpaired"}),
                {"objective.use_weighting", "objective.loss_type"},
                "cannot go with aot, whose sorted pairs are no longer those of the data");
}

void judge_kto(const Filled& filled) {
  filled.judge.require(
      !filled.has_loss({"kto"}) || filled.recipe.batch.micro > 1, {"batch.micro"},
      "must be at least 2 with objective.loss_type = \"kto\": its KL term pairs each prompt with "
      "the completion of another row");
}

void judge_cpo(const Filled& filled) {
  filled.require_loss_for({"label_smoothing"}, {"sigmoid", "simpo"});
  filled.require_loss_for({"simpo_gamma"}, {"simpo"});
  const Objective& written = filled.judge.recipe.objective;
  filled.judge.require(written.loss_type != NamesOrPattern("alphapo") || !written.cpo_alpha,
                       {"objective.cpo_alpha"},
                       "has no effect with objective.loss_type = \"alphapo\", which is \"simpo\" "
                       "with cpo_alpha = 0");
}

void judge_grpo(const Filled& filled) {
  const Objective& objective = filled.objective();
  Judgement& judge = filled.judge;
  const Keys clipped = {"grpo", "bnpo", "dr_grpo", "dapo", "luspo"};
  filled.require_loss_for({"delta"}, clipped);
  Keys with_epsilon = clipped;
  with_epsilon.push_back("cispo");
  filled.require_loss_for({"epsilon", "epsilon_high"}, with_epsilon);
  if (filled.has_loss({"cispo"}) && objective.epsilon_high) {
    filled.require_idle({"epsilon"}, "has no effect: cispo takes objective.epsilon_high alone");
  }
  filled.require_loss_for({"sapo_temperature_neg", "sapo_temperature_pos"}, {"sapo"});
  filled.require_loss_for({"vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"},
                          {"vespo"});
  judge.require(!filled.has_loss({"vespo"}) || objective.importance_sampling_level == "token",
                {"objective.importance_sampling_level", "objective.loss_type"},
                "must be \"token\" with objective.loss_type = \"vespo\", which weighs sequences "
                "itself");
  if (*objective.beta == 0) {
    filled.require_idle({"use_bias_correction_kl"}, no_effect("objective.beta = 0"));
  }
  const Keys adaptive = {"entropy_coef_min", "entropy_coef_max", "entropy_coef_delta",
                         "entropy_target"};
  if (!*objective.use_adaptive_entropy) {
    filled.require_idle(adaptive, no_effect("objective.use_adaptive_entropy = false"));
  }
  judge.require(*objective.entropy_coef_min <= *objective.entropy_coef_max,
                {"objective.entropy_coef_min", "objective.entropy_coef_max"},
                "must be at most objective.entropy_coef_max = " +
                    to_toml(Value{*objective.entropy_coef_max}));
}

void judge_rloo(const Filled& filled) {
  const auto& range = filled.objective().reward_clip_range;
  filled.judge.require(!range || (range->size() == 2 && (*range)[0] < (*range)[1]),
                       {"objective.reward_clip_range"},
                       "must be two numbers, the lower one first, as [-10.0, 10.0]");
}

void judge_distillation(const Filled& filled) {
  const Objective& objective = filled.objective();
  Judgement& judge = filled.judge;
  const std::string of = of_kind(filled.kind);
  judge.require(objective.teacher.has_value() || !judge.findings.clean({"objective.teacher"}),
                {"objective.kind"}, "needs objective.teacher: the directory of the teacher");
  judge.require(*objective.beta <= 1, {"objective.beta"}, "must be at most 1 with " + of);
  judge.require(filled.recipe.generation.temperature.value_or(1) > 0, {"generation.temperature"},
                "must be above 0 with " + of);
  const bool samples = samples_completions(objective);
  judge.require(!samples || filled.recipe.generation.max_new_tokens == Generation{}.max_new_tokens,
                {"generation.max_new_tokens"},
                no_effect(of) + ": say objective.max_completion_length");
  if (*objective.lmbda == 1) filled.require_idle({"seq_kd"}, no_effect("objective.lmbda = 1"));
  if (samples) return;
  filled.require_idle({"max_completion_length"}, no_effect("objective.lmbda = 0"));
  judge.require(filled.kind.name != "gkd" || !judge.recipe.generation.temperature,
                {"generation.temperature"},
                no_effect("objective.lmbda = 0") + ": gkd's loss has no temperature");
}

// ---- rewards -----------------------------------------------------------------------------------

void judge_reward(Judgement& judge, const Reward& reward, const std::string& entry) {
  const Kind* kind = find_kind(reward_kinds(), reward.kind);
  judge.require(kind != nullptr || !judge.findings.clean({entry, entry + ".kind"}),
                {entry + ".kind", entry},
                "needs a kind: one of " + all_in_quotes(names_of(reward_kinds())));
  if (!kind) return;
  const std::string of_reward = "a reward of kind " + in_quotes(kind->name);
  static const std::set<std::string> of_all = {"kind", "name", "weight"};
  for (const RewardKey& key : reward_keys()) {
    judge.require(of_all.contains(key.name) || key.get(reward) == Value{} || kind->field(key.name),
                  {entry + "." + key.name},
                  "belongs to " + listed(kinds_with(reward_kinds(), key.name), " and ") +
                      ", not to " + of_reward);
  }
  const auto needs = [&](const char* key, bool given) {
    judge.require(given || !judge.findings.clean({entry + "." + key}), {entry + ".kind"},
                  of_reward + " needs " + key);
  };
  if (kind->name == "regex") needs("pattern", reward.pattern.has_value());
  if (kind->name == "model") needs("path", reward.path.has_value());
  if (kind->name == "program") needs("command", reward.command.has_value());
}

Keys kinds_that_sample() {
  Keys names;
  for (const ObjectiveKind& kind : objective_kinds()) {
    if (kind.samples) names.push_back(kind.name);
  }
  return names;
}

void judge_rewards(const Filled& filled) {
  Judgement& judge = filled.judge;
  const std::vector<Reward>& rewards = judge.recipe.objective.rewards;
  if (!filled.kind.samples) {
    judge.require(rewards.empty(), {"objective.rewards.0", "objective.rewards"},
                  "belongs to " + listed(kinds_that_sample(), " and ") + ", not to " +
                      of_kind(filled.kind));
    return;
  }
  judge.require(!rewards.empty(), {"objective.rewards", "objective.kind"},
                "needs [[objective.rewards]]: what scores a completion");
  std::set<std::string> names;
  for (size_t i = 0; i < rewards.size(); ++i) {
    const std::string entry = "objective.rewards." + std::to_string(i);
    judge_reward(judge, rewards[i], entry);
    const std::string name = rewards[i].name.empty() ? rewards[i].kind : rewards[i].name;
    judge.require(name.empty() || names.insert(name).second,
                  {entry + ".name", entry + ".kind", entry},
                  "another reward is called " + in_quotes(name) + " too: give one a name");
    const Reward& full = filled.recipe.objective.rewards[i];
    judge.require(!full.soft || *full.soft <= *full.max, {entry + ".soft", entry + ".max", entry},
                  "soft must be at most max = " + text(full.max.value_or(0)));
  }
}

// ---- what the kind decides elsewhere -----------------------------------------------------------

void judge_sampling(const Filled& filled) {
  Judgement& judge = filled.judge;
  const Objective& objective = filled.objective();
  const Generation& generation = filled.recipe.generation;
  judge.require(*generation.temperature > 0, {"generation.temperature"},
                "must be above 0 with " + of_kind(filled.kind) + ": completions are sampled");
  judge.require(generation.max_new_tokens == Generation{}.max_new_tokens,
                {"generation.max_new_tokens"},
                no_effect(of_kind(filled.kind)) + ": say objective.max_completion_length");
  judge.require(filled.recipe.data.on_long_row != OnLongRow::kTruncate, {"data.on_long_row"},
                "must be \"drop\" or \"error\" with " + of_kind(filled.kind) +
                    ": a prompt without its end is another prompt");
  const char* weight = filled.kind.field("kl_coef") ? "kl_coef" : "beta";
  if ((objective.kl_coef ? *objective.kl_coef : *objective.beta) > 0) return;
  Keys of_reference = {"ref_model"};
  if (filled.kind.field("sync_ref_model")) of_reference.push_back("sync_ref_model");
  filled.require_idle(
      of_reference, no_effect(std::string("objective.") + weight + " = 0: there is no reference"));
}

void judge_data(const Filled& filled) {
  Judgement& judge = filled.judge;
  const bool distills = filled.kind.field("teacher") != nullptr;
  const bool samples = samples_completions(filled.objective());
  const Data& written = judge.recipe.data;
  const std::string with = " with " + of_kind(filled.kind);
  judge.require(!written.streaming || !(samples || filled.kind.samples), {"data.streaming"},
                "must be false" + with + ": completions are sampled for prepared rows");
  judge.require(!written.streaming || !filled.objective().precompute_ref_log_probs.value_or(false),
                {"objective.precompute_ref_log_probs", "data.streaming"},
                "needs prepared rows: data.streaming = false");
  if (filled.kind.name == "sft" || (distills && !samples)) return;
  const std::string packs =
      distills ? ": rows are packed with objective.lmbda = 0 and seq_kd = false" : ": only sft packs rows";
  judge.require(written.packing == Packing::kNone || !judge.findings.place("data.packing"),
                {"data.packing"}, "must be \"none\"" + with + packs);
  judge.require(written.packing_window == Data{}.packing_window, {"data.packing_window"},
                no_effect(of_kind(filled.kind)) + packs);
  if (distills) return;
  const std::string whole =
      filled.kind.rows_only ? ", which takes whole texts" : ", which compares whole completions";
  judge.require(written.loss_on == LossOn::kAuto, {"data.loss_on"},
                "must be \"auto\"" + with + whole);
  judge.require(written.on_long_row != OnLongRow::kSplit, {"data.on_long_row"},
                "cannot be \"split\"" + with + whole);
}

void judge_metric(const Filled& filled) {
  const std::string& metric = filled.recipe.eval.metric;
  std::vector<std::string> metrics = {"eval_loss"};
  metrics.insert(metrics.end(), filled.kind.metrics.begin(), filled.kind.metrics.end());
  filled.judge.require(
      std::find(metrics.begin(), metrics.end(), metric) != metrics.end(), {"eval.metric"},
      "must be one of " + all_in_quotes(metrics) + " with " + of_kind(filled.kind));
}

}  // namespace

void judge_objective(Judgement& judge, Purpose purpose) {
  if (!judge.findings.clean({"objective.kind"})) return;
  const ObjectiveKind* kind = find_objective_kind(judge.recipe.objective.kind);
  if (!kind) return;
  judge.require(!kind->rows_only || purpose == Purpose::kPrepare, {"objective.kind"},
                "this version prepares and shows its rows (`temper prepare`, `temper inspect`), and "
                "trains only " +
                    all_in_quotes(trained_kinds()));
  judge_fields(judge, *kind);
  judge_loss_type(judge, *kind);
  const Recipe recipe = resolve(judge.recipe);
  const Objective& objective = recipe.objective;
  Filled filled{judge, recipe, *kind, {}};
  if (const auto* name =
          objective.loss_type ? std::get_if<std::string>(&*objective.loss_type) : nullptr) {
    filled.losses = {*name};
  } else if (objective.loss_type) {
    const Keys& names = std::get<Keys>(*objective.loss_type);
    filled.losses = {names.begin(), names.end()};
  }
  judge_data(filled);
  judge_metric(filled);
  judge_rewards(filled);
  static const std::set<std::string> from_zero = {"grpo", "rloo", "gkd", "distill"};
  judge.require(!objective.beta || *objective.beta > 0 || from_zero.contains(kind->name),
                {"objective.beta"},
                "must be above 0 with " + of_kind(*kind) + " (typical: 0.05 to 0.5)");
  if (kind->field("sync_ref_model")) judge_reference(filled);
  if (kind->samples) judge_sampling(filled);
  if (kind->name == "dpo") judge_dpo(filled);
  if (kind->name == "kto") judge_kto(filled);
  if (kind->name == "cpo") judge_cpo(filled);
  if (kind->name == "grpo") judge_grpo(filled);
  if (kind->name == "rloo") judge_rloo(filled);
  if (kind->field("teacher")) judge_distillation(filled);
}

void judge_rollouts(Judgement& judge, int64_t ranks) {
  if (!judge.findings.clean(
          {"objective.kind", "objective.num_generations", "batch.global", "batch.micro"}))
    return;
  const ObjectiveKind* kind = find_objective_kind(judge.recipe.objective.kind);
  if (!kind || !kind->samples) return;
  const Recipe recipe = resolve(judge.recipe);
  const int64_t group = kind->field("num_generations") ? *recipe.objective.num_generations : 1;
  const int64_t global = recipe.batch.global;
  const int64_t micro_batches = recipe.batch.micro * ranks;
  const auto [below, above] = nearest_multiples(global, std::lcm(micro_batches, group));
  judge.require(global % group == 0, {"batch.global", "objective.num_generations"},
                "batch.global = " + text(global) +
                    " counts completions and must be a multiple of "
                    "objective.num_generations = " +
                    text(group) + " (nearest: " + (below > 0 ? text(below) + " or " : "") +
                    text(above) + ")");
  if (const auto steps = recipe.objective.steps_per_generation) {
    judge.require(
        micro_batches * *steps % global == 0, {"objective.steps_per_generation"},
        "must make whole steps: batch.micro x ranks x this = " + text(micro_batches * *steps) +
            " is no multiple of batch.global = " + text(global) + " (" +
            text(global / micro_batches) + " micro-batches a step)");
  }
}

}  // namespace temper::recipes
