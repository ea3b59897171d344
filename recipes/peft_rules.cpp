#include <algorithm>
#include <string>
#include <variant>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/judgement.h"
#include "recipes/name_pattern.h"
#include "recipes/peft_methods.h"
#include "recipes/schema.h"

namespace temper::recipes {
namespace {

using Keys = std::vector<std::string>;

bool is_set(const Value& value) {
  return value != Value{} && value != Value{std::map<std::string, int64_t>{}};
}

bool is_list(const std::optional<NamesOrPattern>& names) {
  return names && std::holds_alternative<std::vector<std::string>>(*names);
}

const std::vector<std::string>& list(const std::optional<NamesOrPattern>& names) {
  return std::get<std::vector<std::string>>(*names);
}

// ---- what belongs to the method ----------------------------------------------------------------

void judge_fields(Judgement& judge, const PeftMethod& method) {
  const std::string of_method = "peft.method = " + in_quotes(method.name);
  for (const Key& key : keys()) {
    if (!key.name.starts_with("peft.") || is_of_every_method(key.name)) continue;
    const Value value = key.get(judge.recipe);
    if (!is_set(value)) continue;
    const PeftField* field = method.field(key.name);
    judge.require(
        field != nullptr, {key.name},
        "belongs to " + listed(methods_with(key.name), " and ") + ", not to " + of_method);
    if (!field) continue;
    const std::vector<Value>& allowed = field->allowed;
    judge.require(
        allowed.empty() || std::find(allowed.begin(), allowed.end(), value) != allowed.end(),
        {key.name}, "must be " + one_of(allowed) + " with " + of_method);
    const std::string init(init_of(key.name));
    judge.require(init.empty() || judge.recipe.peft.init_lora_weights == BoolOrWord(init),
                  {key.name}, "belongs to peft.init_lora_weights = " + in_quotes(init) + " alone");
  }
}

// ---- modules and layers ------------------------------------------------------------------------

bool has_parameters(const Peft& peft) {
  return peft.target_parameters && !peft.target_parameters->empty();
}

void judge_parameters(Judgement& judge) {
  const Peft& peft = judge.recipe.peft;
  if (!is_list(peft.target_modules) || !list(peft.target_modules).empty()) return;
  judge.require(has_parameters(peft), {"peft.target_modules"},
                "must not be empty, unless peft.target_parameters says what is adapted");
  const std::string idle = no_effect("peft.target_modules = []");
  judge.require(!peft.exclude_modules, {"peft.exclude_modules"}, idle);
  judge.require(!peft.layers_to_transform, {"peft.layers_to_transform"}, idle);
}

void judge_modules(Judgement& judge) {
  const Peft& peft = judge.recipe.peft;
  // By what runs them, which takes Python's syntax.
  const auto judge_pattern = [&](const char* key, const std::string& pattern) {
    const std::string problem = NamePattern::problem(pattern);
    judge.require(problem.empty(), {key},
                  in_quotes(pattern) + " is not a regular expression: " + problem);
  };
  const auto judge_names = [&](const char* key, const std::optional<NamesOrPattern>& names) {
    if (names && !is_list(names)) judge_pattern(key, std::get<std::string>(*names));
  };
  judge_names("peft.target_modules", peft.target_modules);
  judge_names("peft.exclude_modules", peft.exclude_modules);
  judge_names("peft.feedforward_modules", peft.feedforward_modules);
  judge_parameters(judge);
  for (const auto& [pattern, r] : peft.rank_pattern) {
    judge_pattern("peft.rank_pattern", pattern);
  }
  for (const auto& [pattern, alpha] : peft.alpha_pattern) {
    judge_pattern("peft.alpha_pattern", pattern);
  }
  judge.require(!peft.layers_pattern || peft.layers_to_transform, {"peft.layers_pattern"},
                "needs peft.layers_to_transform");
  judge.require(!peft.layers_to_transform || !peft.target_modules || is_list(peft.target_modules),
                {"peft.layers_to_transform", "peft.target_modules"},
                "needs a list in peft.target_modules: an expression says the layers itself");
  if (is_list(peft.feedforward_modules) && is_list(peft.target_modules)) {
    const std::vector<std::string>& targets = list(peft.target_modules);
    for (const std::string& name : list(peft.feedforward_modules)) {
      judge.require(std::find(targets.begin(), targets.end(), name) != targets.end(),
                    {"peft.feedforward_modules", "peft.target_modules"},
                    in_quotes(name) + " is not in peft.target_modules");
    }
  }
}

// ---- the methods' own rules, with PEFT's defaults filled in -------------------------------------

// Keys that do nothing beside `cause` must have their defaults.
void judge_idle(Judgement& judge, const Recipe& filled, const Keys& idle,
                const std::string& cause) {
  const PeftMethod& method = *find_peft_method(filled.peft.method);
  for (const std::string& key : idle) {
    judge.require(find_key(key)->get(filled) == method.field(key)->initial, {key},
                  no_effect(cause));
  }
}

void judge_lora(Judgement& judge, const Peft& peft) {
  const bool plain_init = std::holds_alternative<bool>(*peft.init_lora_weights);
  judge.require(!*peft.lora_bias || plain_init, {"peft.lora_bias", "peft.init_lora_weights"},
                "needs peft.init_lora_weights = true or false");
  judge.require(!*peft.lora_bias || !*peft.use_dora, {"peft.lora_bias", "peft.use_dora"},
                "cannot go with peft.use_dora");
  if (!has_parameters(peft)) return;
  // A weight by itself has no input to drop and no output to shift or scale.
  const std::string with = "cannot go with peft.target_parameters";
  judge.require(*peft.lora_dropout == 0, {"peft.lora_dropout"}, with);
  judge.require(!*peft.lora_bias, {"peft.lora_bias"}, with);
  judge.require(!*peft.use_dora, {"peft.use_dora"}, with);
  const BoolOrWord& init = *peft.init_lora_weights;
  judge.require(init != BoolOrWord("eva") && init != BoolOrWord("loftq"),
                {"peft.init_lora_weights"}, with);
}

void judge_adalora(Judgement& judge, const Peft& peft) {
  judge.require(peft.total_step.has_value(), {"peft.total_step", "peft.method"},
                "needs peft.total_step, the steps of the run");
  if (peft.total_step) {
    judge.require(*peft.tinit < *peft.total_step - *peft.tfinal,
                  {"peft.tinit", "peft.tfinal", "peft.total_step"},
                  "peft.tinit + peft.tfinal must be below peft.total_step = " +
                      std::to_string(*peft.total_step) + ": ranks fall in between");
  }
  judge.require(*peft.target_r <= *peft.init_r, {"peft.target_r", "peft.init_r"},
                "must be at most peft.init_r = " + std::to_string(*peft.init_r));
}

void judge_blocks(Judgement& judge, const std::string& key, int64_t size, const std::string& other,
                  int64_t count) {
  judge.require((size == 0) != (count == 0), {other, key},
                "exactly one of " + key + " = " + std::to_string(size) + " and " + other + " = " +
                    std::to_string(count) + " must be 0: their product is a side of the layer");
}

void judge_oft(Judgement& judge, const Recipe& filled) {
  const Peft& peft = filled.peft;
  judge_blocks(judge, "peft.oft_block_size", *peft.oft_block_size, "peft.r", *peft.r);
  judge.require(*peft.module_dropout == 0, {"peft.module_dropout"},
                "PEFT takes it for OFT but never applies it: leave it at 0");
  if (!*peft.coft) judge_idle(judge, filled, {"peft.eps"}, "peft.coft = false");
  if (!*peft.use_cayley_neumann) {
    judge_idle(judge, filled, {"peft.num_cayley_neumann_terms"}, "peft.use_cayley_neumann = false");
  }
}

void judge_prompt(Judgement& judge, const Recipe& filled, const PeftMethod& method) {
  const Peft& peft = filled.peft;
  judge.require(peft.num_virtual_tokens.has_value(), {"peft.num_virtual_tokens", "peft.method"},
                "needs peft.num_virtual_tokens");
  if (method.name == "prefix_tuning") {
    if (!*peft.prefix_projection) {
      judge_idle(judge, filled, {"peft.encoder_hidden_size"}, "peft.prefix_projection = false");
    }
  } else if (method.name == "prompt_tuning") {
    const bool from_text = peft.prompt_tuning_init == "TEXT";
    judge.require(!from_text || peft.prompt_tuning_init_text,
                  {"peft.prompt_tuning_init", "peft.prompt_tuning_init_text"},
                  "needs peft.prompt_tuning_init_text");
    judge.require(from_text || !peft.prompt_tuning_init_text, {"peft.prompt_tuning_init_text"},
                  "needs peft.prompt_tuning_init = \"TEXT\"");
  } else if (peft.encoder_reparameterization_type == "MLP") {
    judge_idle(judge, filled, {"peft.encoder_num_layers", "peft.encoder_dropout"},
               "peft.encoder_reparameterization_type = \"MLP\"");
  }
}

void judge_method(Judgement& judge, const PeftMethod& method) {
  Recipe filled = judge.recipe;
  fill_in_peft(filled);
  const Peft& peft = filled.peft;
  judge.require(!peft.r || *peft.r > 0 || method.name == "oft", {"peft.r"}, "must be at least 1");
  if (method.name == "lora") judge_lora(judge, peft);
  if (method.name == "adalora") judge_adalora(judge, peft);
  if (method.name == "oft") judge_oft(judge, filled);
  if (method.name == "lokr" && *peft.rank_dropout == 0) {
    judge_idle(judge, filled, {"peft.rank_dropout_scale"}, "peft.rank_dropout = 0");
  }
  if (method.name == "boft") {
    judge_blocks(judge, "peft.boft_block_size", *peft.boft_block_size, "peft.boft_block_num",
                 *peft.boft_block_num);
  }
  if (method.field("num_virtual_tokens")) judge_prompt(judge, filled, method);
}

// ---- around the adapter ------------------------------------------------------------------------

void judge_quantisation(Judgement& judge, bool adapter, Purpose purpose) {
  const Model& model = judge.recipe.model;
  judge.require(model.quantize == "none" || adapter || purpose == Purpose::kEval,
                {"model.quantize"},
                "quantised weights are frozen: add [peft] to train an adapter on them");
  judge.require(model.double_quant || model.quantize == "nf4" || model.quantize == "fp4",
                {"model.double_quant"}, no_effect("model.quantize = " + in_quotes(model.quantize)));
}

void judge_added_tokens(Judgement& judge) {
  std::vector<std::string> tokens = judge.recipe.model.add_tokens;
  std::sort(tokens.begin(), tokens.end());
  judge.require(tokens.empty() || !tokens.front().empty(), {"model.add_tokens"},
                "a token must not be empty");
  const auto twice = std::adjacent_find(tokens.begin(), tokens.end());
  if (twice != tokens.end())
    judge.require(false, {"model.add_tokens"}, in_quotes(*twice) + " stands there twice");
}

void judge_loraplus(Judgement& judge) {
  const Optimizer& optimizer = judge.recipe.optimizer;
  const Optimizer unset;
  const bool on = optimizer.loraplus_lr_ratio.has_value();
  judge.require(!on || judge.recipe.peft.method == "lora", {"optimizer.loraplus_lr_ratio"},
                "needs peft.method = \"lora\"");
  const std::string without_ratio = "needs optimizer.loraplus_lr_ratio";
  judge.require(on || optimizer.loraplus_lr_embedding == unset.loraplus_lr_embedding,
                {"optimizer.loraplus_lr_embedding"}, without_ratio);
  judge.require(on || optimizer.loraplus_weight_decay == unset.loraplus_weight_decay,
                {"optimizer.loraplus_weight_decay"}, without_ratio);
  judge.require(!on || optimizer.weight_decay == 0, {"optimizer.weight_decay"},
                no_effect("optimizer.loraplus_lr_ratio: say optimizer.loraplus_weight_decay"));
}

}  // namespace

void judge_peft(Judgement& judge, Purpose purpose) {
  const Recipe& recipe = judge.recipe;
  judge_added_tokens(judge);
  if (!judge.findings.clean({"peft.method"})) return;
  const PeftMethod* method = find_peft_method(recipe.peft.method);
  const bool adapter = method || !recipe.model.adapter.empty();
  judge_quantisation(judge, adapter, purpose);
  judge_loraplus(judge);
  judge.require(!recipe.export_.merge || adapter, {"export.merge"},
                "there is no adapter to merge: it needs [peft] or model.adapter");
  if (adapter) {
    judge.require(recipe.train.trainable.empty(), {"train.trainable"},
                  "the adapter is what is trained: name modules that are trained along in "
                  "peft.modules_to_save");
  }
  if (!method) return;
  judge.require(recipe.model.adapter.empty(), {"model.adapter"},
                "its own adapter_config.json says the method: leave [peft] out");
  judge.require(!recipe.export_.merge || method->mergeable, {"export.merge"},
                "what " + method->name + " trains cannot be folded into the weights");
  judge_fields(judge, *method);
  judge_modules(judge);
  judge_method(judge, *method);
}

}  // namespace temper::recipes
