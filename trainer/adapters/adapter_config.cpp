#include "trainer/adapters/adapter_config.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "data/hub/repository.h"
#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "recipes/schema.h"
#include "trainer/adapters/adapter_fields.h"
#include "trainer/adapters/prompt_learning.h"
#include "trainer/adapters/targets.h"
#include "trainer/models/decoder_names.h"

namespace temper::trainer {

namespace {

using data::Json;
using recipes::NamesOrPattern;
using recipes::Peft;

constexpr const char* kPeftVersion = "0.21.2";

Json sorted(const Json& object) {
  std::map<std::string, Json> members;
  for (const auto& [key, value] : object.items()) members.emplace(key, value);
  Json result = Json::object();
  for (auto& [key, value] : members) result[key] = std::move(value);
  return result;
}

// The tensors hold the directions that AdaLoRA has kept alone, so that their order is all a reader
// needs.
Json adalora_rank_pattern(const Peft& peft) {
  if (peft.rank_pattern.empty()) return nullptr;
  Json pattern = Json::object();
  for (const auto& [module, rank] : peft.rank_pattern) {
    TEMPER_CHECK(peft.init_r && rank <= *peft.init_r, "AdaLoRA's ranks only shrink");
    std::vector<bool> kept(*peft.init_r, false);
    std::fill_n(kept.begin(), rank, true);
    pattern[module + kAdaLoraKey] = kept;
  }
  return pattern;
}

// What is set of loftq_config or eva_config; `unset` where nothing is.
Json sub_config(const recipes::Recipe& recipe, const std::string& parent, const Json& unset) {
  Json object = Json::object();
  for (const recipes::PeftField& field : recipes::find_peft_method("lora")->fields) {
    const std::string key = within(field.key, parent);
    if (key.empty()) continue;
    const Json value = to_json(recipes::find_key("peft." + field.key)->get(recipe));
    if (!value.is_null()) object[key] = value;
  }
  if (object.empty()) return unset;
  if (parent == "eva_config") object["label_mask_value"] = -100;
  return sorted(object);
}

// IA3: PEFT wants each feedforward name to be among the target names, letter by letter.
Json feedforward_among(const Peft& peft, const NamesOrPattern& targets, Json otherwise) {
  const auto* names = std::get_if<std::vector<std::string>>(&targets);
  const auto* feedforward = peft.feedforward_modules
                                ? std::get_if<std::vector<std::string>>(&*peft.feedforward_modules)
                                : nullptr;
  if (names == nullptr || feedforward == nullptr) return otherwise;
  std::vector<std::string> among;
  for (const std::string& name : *names) {
    if (is_feedforward(peft, name)) among.push_back(name);
  }
  return among;
}

std::string last_name(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}

void add_prompt_sizes(Json& json, const Peft& peft, const ModelConfig& model) {
  const bool prefix = peft.method == "prefix_tuning";
  const int64_t heads = prefix ? model.num_key_value_heads : model.num_attention_heads;
  const int64_t width = prefix ? heads * model.head_dim : model.hidden_size;
  json["token_dim"] = width;
  json["num_attention_heads"] = heads;
  json["num_layers"] = model.num_hidden_layers;
  json["num_transformer_submodules"] = 1;
  if (json.contains("encoder_hidden_size") && json["encoder_hidden_size"].is_null()) {
    json["encoder_hidden_size"] = width;
  }
}

void add_lora_extras(Json& json, const recipes::Recipe& recipe) {
  const Peft& peft = recipe.peft;
  if (peft.method == "adalora") {
    json["r"] = 8;  // of LoRA's config; AdaLoRA has init_r and target_r
    json["rank_pattern"] = adalora_rank_pattern(peft);
    return;
  }
  for (const auto& [module, alpha] : peft.alpha_fractions) json["alpha_pattern"][module] = alpha;
  json["loftq_config"] = sub_config(recipe, "loftq_config", Json::object());
  json["eva_config"] = sub_config(recipe, "eva_config", nullptr);
}

}  // namespace

Json adapter_config(const Peft& peft, const std::string& base, const NamesOrPattern& target_modules,
                    const ModelConfig& model) {
  const recipes::PeftMethod* method = recipes::find_peft_method(peft.method);
  TEMPER_CHECK(method != nullptr, "no such method: " + peft.method);
  const std::optional<data::HubName> hub = data::hub_name(base);
  const bool pinned = hub && hub->repository != base;
  Json json = {{"auto_mapping", nullptr},
               {"base_model_name_or_path", base.empty() ? Json(nullptr) : Json(hub ? hub->repository : base)},
               {"inference_mode", true},
               {"peft_type", peft_type_of(peft.method)},
               {"peft_version", kPeftVersion},
               {"revision", pinned ? Json(hub->revision) : Json(nullptr)},
               {"task_type", model.num_labels > 0 ? "SEQ_CLS" : "CAUSAL_LM"}};
  recipes::Recipe recipe;
  recipe.peft = peft;
  for (const recipes::PeftField& field : method->fields) {
    if (field.key.find('.') != std::string::npos) continue;
    const Json value = to_json(recipes::find_key("peft." + field.key)->get(recipe));
    json[field.key] = value.is_null() ? to_json(field.initial) : value;
  }
  for (const FixedField& field : fixed_fields(peft.method)) json[field.key] = field.value;
  if (has_transposed_flag(peft.method)) json[kTransposedFlag] = model.stores_transposed;
  if (json.contains("target_modules")) {
    json["target_modules"] = std::visit([](const auto& held) { return Json(held); }, target_modules);
  }
  if (peft.method == "ia3") {
    json["feedforward_modules"] =
        feedforward_among(peft, target_modules, json["feedforward_modules"]);
  }
  if (has_lora_fields(peft.method)) add_lora_extras(json, recipe);
  if (peft.head_token_indices) {
    Json tokens = Json::object();
    if (peft.trainable_token_indices) tokens[last_name(names_of(model).embedding)] = *peft.trainable_token_indices;
    tokens["lm_head"] = *peft.head_token_indices;
    json["trainable_token_indices"] = std::move(tokens);
  }
  if (is_prompt_learning(peft.method)) add_prompt_sizes(json, peft, model);
  if (peft.method == "prompt_tuning") {
    // PEFT refuses a prompt that began as text unless it says by which tokenizer.
    const bool text = json["prompt_tuning_init"] == Json("TEXT");
    json["tokenizer_name_or_path"] = text ? Json(base) : Json(nullptr);
    json["tokenizer_kwargs"] = nullptr;
  }
  return sorted(json);
}

}  // namespace temper::trainer
