// adapter_config.json to [peft].
#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "recipes/schema.h"
#include "recipes/value.h"
#include "trainer/adapters/adapter_config.h"
#include "trainer/adapters/adapter_fields.h"
#include "trainer/adapters/prompt_learning.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;
using data::Json;
using recipes::Peft;
using recipes::Value;

// Written by PEFT and of no consequence here: who wrote it, and what the base model says itself.
bool is_ignored(const std::string& key) {
  static const std::set<std::string> keys = {"auto_mapping",           "base_model_name_or_path",
                                             "inference_mode",         "peft_type",
                                             "peft_version",           "revision",
                                             "runtime_config",         "token_dim",
                                             "num_attention_heads",    "num_layers",
                                             "tokenizer_name_or_path", "tokenizer_kwargs"};
  return keys.contains(key);
}

bool says_nothing(const Json& value) {
  return value.is_null() || value == Json(false) ||
         ((value.is_object() || value.is_array()) && value.empty());
}

// Reads one config, collecting what is wrong with it.
class Reader {
 public:
  Reader(const fs::path& file, const Json& json) : file_(file), json_(json) {}

  Peft read_all() {
    if (!json_.is_object() || !json_.contains("peft_type") || !json_["peft_type"].is_string()) {
      throw UserError(file_.string() + ": peft_type is missing: is this an adapter of PEFT?");
    }
    const std::string peft_type = json_["peft_type"];
    std::vector<std::string> types;
    const recipes::PeftMethod* method = nullptr;
    for (const recipes::PeftMethod& row : recipes::peft_methods()) {
      types.push_back(peft_type_of(row.name));
      if (types.back() == peft_type) method = &row;
    }
    if (method == nullptr) {
      throw UserError(file_.string() + ": peft_type = \"" + peft_type +
                      "\" is not supported: must be one of " + join(types));
    }
    peft().method = method->name;
    read_fields(*method);
    read_fixed(*method);
    check_init();
    check_the_rest(*method);
    recipes::fill_in_peft(recipe_);
    check_values(*method);
    if (!findings_.empty()) throw UserError(findings_);
    return peft();
  }

 private:
  Peft& peft() { return recipe_.peft; }

  void refuse(const std::string& key, const std::string& why) {
    findings_.push_back(file_.string() + ": " + key + " = " + json_[key].dump() + ": " + why);
  }

  void read_fields(const recipes::PeftMethod& method) {
    std::set<std::string> parents;
    for (const recipes::PeftField& field : method.fields) {
      if (const size_t dot = field.key.find('.'); dot != std::string::npos) {
        parents.insert(field.key.substr(0, dot));
        continue;
      }
      known_.insert(field.key);
      if (!json_.contains(field.key)) continue;
      Json value = json_[field.key];
      if (field.key == "trainable_token_indices" && value.is_object()) {
        value = tokens_of_embedding(value);
      }
      if (field.key == "alpha_pattern") value = whole_alphas(value);
      set(field.key, field.key, value);
    }
    for (const std::string& parent : parents) read_sub_config(method, parent);
  }

  // `value` as that of `key`; what is wrong is said of the file's field.
  void set(const std::string& key, const std::string& field, const Json& json) {
    const recipes::Key* row = recipes::find_key("peft." + key);
    TEMPER_CHECK(row != nullptr, "every field of a method is a key: " + key);
    Value value;
    const std::string wanted = read_value(json, row->type, value);
    if (!wanted.empty()) {
      refuse(field, (key == field ? "" : "'" + within(key, field) + "' ") + ("must be " + wanted));
    } else {
      row->set(recipe_, value);
    }
  }

  void read_sub_config(const recipes::PeftMethod& method, const std::string& parent) {
    known_.insert(parent);
    if (!json_.contains(parent) || says_nothing(json_[parent])) return;
    if (!json_[parent].is_object()) return refuse(parent, "must be an object");
    for (const auto& [name, value] : json_[parent].items()) {
      if (method.field(parent + "." + name) != nullptr) {
        set(parent + "." + name, parent, value);
      } else if (name != "label_mask_value") {
        refuse(parent, "'" + name + "' is not known to Temper");
      }
    }
  }

  // {"embed_tokens": [...]} is the long form of the list; an output head of its own has another.
  Json tokens_of_embedding(const Json& object) {
    Json embedding;
    for (const auto& [module, ids] : object.items()) {
      if (module.ends_with("embed_tokens") || module.ends_with("wte")) {
        embedding = ids;
      } else if (module.ends_with("lm_head")) {
        Value value;
        const std::string wanted = read_value(ids, recipes::Type::kInts, value);
        if (const auto* list = std::get_if<std::vector<int64_t>>(&value)) {
          peft().head_token_indices = *list;
        } else {
          refuse("trainable_token_indices",
                 "lm_head's must be " + (wanted.empty() ? "a list of whole numbers" : wanted));
        }
      } else {
        refuse("trainable_token_indices", "'" + module + "' is neither embed_tokens nor lm_head");
      }
    }
    return embedding;
  }

  // EVA leaves alphas that are no whole numbers, which are kept apart.
  Json whole_alphas(const Json& pattern) {
    if (!pattern.is_object()) return pattern;
    Json whole = Json::object();
    for (const auto& [module, alpha] : pattern.items()) {
      const bool fraction = alpha.is_number_float() && alpha.get<double>() > 0 &&
                            alpha.get<double>() != std::floor(alpha.get<double>());
      if (fraction) {
        peft().alpha_fractions[module] = alpha.get<double>();
      } else {
        whole[module] = alpha;
      }
    }
    return whole;
  }

  void read_adalora_ranks() {
    known_.insert({"r", "rank_pattern"});
    if (!json_.contains("rank_pattern") || json_["rank_pattern"].is_null()) return;
    const Json& pattern = json_["rank_pattern"];
    if (!pattern.is_object()) return refuse("rank_pattern", "must be an object");
    for (const auto& [key, kept] : pattern.items()) {
      const bool flags = kept.is_array() && std::all_of(kept.begin(), kept.end(), [](const Json& one) {
                           return one.is_boolean();
                         });
      if (!flags) {
        return refuse("rank_pattern", "must be an object of lists of true and false");
      }
      const std::string module = key.ends_with(kAdaLoraKey)
                                     ? key.substr(0, key.size() - std::string(kAdaLoraKey).size())
                                     : key;
      peft().rank_pattern[module] = std::count(kept.begin(), kept.end(), Json(true));
    }
  }

  void read_fixed(const recipes::PeftMethod& method) {
    if (has_transposed_flag(method.name)) {
      known_.insert(kTransposedFlag);
      if (json_.contains(kTransposedFlag) && !json_[kTransposedFlag].is_boolean()) {
        refuse(kTransposedFlag, "must be true or false");
      }
    }
    if (method.name == "adalora") read_adalora_ranks();
    for (const FixedField& field : fixed_fields(method.name)) {
      known_.insert(field.key);
      if (!json_.contains(field.key)) continue;
      const Json& value = json_[field.key];
      if (value != field.value && !says_nothing(value)) {
        refuse(field.key, "is a setting that Temper does not do");
      }
    }
  }

  void check_init() {
    const auto& given = peft().init_lora_weights;
    const auto* init = given ? std::get_if<std::string>(&*given) : nullptr;
    if (init == nullptr) return;
    if (*init == "mica") refuse("init_lora_weights", "is a method that Temper does not do");
    if (*init == "corda" || *init == "lora_ga") {
      refuse("init_lora_weights",
             "the base weights that it belongs to cannot be made again from here: convert it "
             "(PEFT: save_pretrained with path_initial_model_for_weight_conversion)");
    }
  }

  void check_the_rest(const recipes::PeftMethod& method) {
    for (const auto& [key, value] : json_.items()) {
      if (known_.contains(key) || is_ignored(key)) continue;
      if (key == "task_type") {
        if (!value.is_null() && value != Json("CAUSAL_LM") && value != Json("SEQ_CLS")) {
          refuse(key, "must be \"CAUSAL_LM\" or \"SEQ_CLS\"");
        }
      } else if (key == "num_transformer_submodules") {
        if (!value.is_null() && value != Json(1)) refuse(key, "must be 1");
      } else if (!says_nothing(value)) {
        refuse(key, "is a setting that Temper does not know");
      }
    }
    if (is_prompt_learning(method.name) && !peft().num_virtual_tokens) {
      findings_.push_back(file_.string() + ": num_virtual_tokens is missing");
    }
    if (method.name == "oft" && !json_.contains("oft_block_size")) {
      findings_.push_back(file_.string() +
                          ": oft_block_size is missing: adapters of PEFT before 0.14 are another "
                          "method and have to be trained again");
    }
  }

  // What a recipe's [peft] may not say, a file may not either.
  void check_values(const recipes::PeftMethod& method) {
    for (const auto& [name, unused, allowed] : method.fields) {
      const recipes::Key* key = recipes::find_key("peft." + name);
      const Value value = key->get(recipe_);
      if (std::holds_alternative<std::monostate>(value)) continue;
      std::string problem = recipes::problem_with(*key, value);
      const bool refused = !allowed.empty() && std::ranges::find(allowed, value) == allowed.end();
      if (problem.empty() && refused) problem = "is no value of " + method.name;
      if (problem.empty()) continue;
      findings_.push_back(file_.string() + ": " + name + " = " + recipes::to_toml(value) + ": " +
                          problem);
    }
  }

  const fs::path file_;
  const Json& json_;
  recipes::Recipe recipe_;
  std::set<std::string> known_;
  std::vector<std::string> findings_;
};

}  // namespace

Peft peft_of_config(const Json& config, const fs::path& where) {
  return Reader(where, config).read_all();
}

}  // namespace temper::trainer
