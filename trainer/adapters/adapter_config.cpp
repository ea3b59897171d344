#include "trainer/adapters/adapter_config.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <initializer_list>
#include <map>
#include <set>
#include <utility>
#include <variant>

#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "recipes/schema.h"
#include "recipes/value.h"
#include "trainer/adapters/prompt_learning.h"
#include "trainer/adapters/targets.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;
using data::Json;
using recipes::BoolOrWord;
using recipes::IntOrInts;
using recipes::NamesOrPattern;
using recipes::Peft;

constexpr const char* kPeftVersion = "0.21.2";

using Member =
    std::variant<std::optional<int64_t> Peft::*, std::optional<double> Peft::*,
                 std::optional<bool> Peft::*, std::optional<std::string> Peft::*,
                 std::optional<std::vector<std::string>> Peft::*,
                 std::optional<std::vector<int64_t>> Peft::*, std::optional<NamesOrPattern> Peft::*,
                 std::optional<IntOrInts> Peft::*, std::optional<BoolOrWord> Peft::*,
                 std::map<std::string, int64_t> Peft::*>;

struct Field {
  const char* key;
  Member member;
  Json otherwise;  // PEFT's default, also where an older PEFT did not write the field
};

struct Fixed {
  const char* key;
  Json value;  // the only one that Temper does
};

struct Method {
  const char* peft_type;
  std::vector<Field> fields;
  std::vector<Fixed> fixed;  // PEFT writes them too
};

template <typename Row>
std::vector<Row> joined(std::initializer_list<std::vector<Row>> parts) {
  std::vector<Row> all;
  for (const std::vector<Row>& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// The fields of each method's config in PEFT 0.21.2, with its defaults.
const std::vector<Method>& methods() {
  static const Json kNone = nullptr;
  static const Json kEmpty = Json::object();
  static const std::vector<Field> kSaved = {{"modules_to_save", &Peft::modules_to_save, kNone}};
  static const std::vector<Field> kExclude = {{"exclude_modules", &Peft::exclude_modules, kNone}};
  static const std::vector<Field> kLayers = {
      {"layers_to_transform", &Peft::layers_to_transform, kNone},
      {"layers_pattern", &Peft::layers_pattern, kNone}};
  static const std::vector<Field> kPatterns = {{"rank_pattern", &Peft::rank_pattern, kEmpty},
                                               {"alpha_pattern", &Peft::alpha_pattern, kEmpty}};
  static const std::vector<Field> kBias = {{"bias", &Peft::bias, "none"}};
  static const std::vector<Fixed> kFan = {{"fan_in_fan_out", false}};
  // rank_pattern, eva_config and loftq_config are written and read apart.
  static const std::vector<Field> kLora = {
      {"r", &Peft::r, 8},
      {"lora_alpha", &Peft::lora_alpha, 8},
      {"lora_dropout", &Peft::lora_dropout, 0.0},
      {"use_rslora", &Peft::use_rslora, false},
      {"use_dora", &Peft::use_dora, false},
      {"lora_bias", &Peft::lora_bias, false},
      {"init_lora_weights", &Peft::init_lora_weights, true},
      {"alpha_pattern", &Peft::alpha_pattern, kEmpty},
      {"trainable_token_indices", &Peft::trainable_token_indices, kNone},
      {"target_parameters", &Peft::target_parameters, kNone}};
  static const std::vector<Fixed> kLoraFixed = {
      {"fan_in_fan_out", false},      {"alora_invocation_tokens", kNone},
      {"arrow_config", kNone},        {"corda_config", kNone},
      {"ensure_weight_tying", false}, {"kasa_config", kNone},
      {"layer_replication", kNone},   {"lora_ga_config", kNone},
      {"megatron_config", kNone},     {"megatron_core", "megatron.core"},
      {"monteclora_config", kNone},   {"qalora_group_size", 16},
      {"use_bdlora", kNone},          {"use_qalora", false},
      {"velora_config", kNone}};
  static const std::vector<Field> kAdaLora = {{"target_r", &Peft::target_r, 8},
                                              {"init_r", &Peft::init_r, 12},
                                              {"tinit", &Peft::tinit, 0},
                                              {"tfinal", &Peft::tfinal, 0},
                                              {"deltaT", &Peft::deltaT, 1},
                                              {"beta1", &Peft::beta1, 0.85},
                                              {"beta2", &Peft::beta2, 0.85},
                                              {"orth_reg_weight", &Peft::orth_reg_weight, 0.5},
                                              {"total_step", &Peft::total_step, kNone}};
  static const std::vector<Field> kIa3 = {
      {"feedforward_modules", &Peft::feedforward_modules, kNone},
      {"init_ia3_weights", &Peft::init_ia3_weights, true}};
  static const std::vector<Field> kLycoris = {
      {"r", &Peft::r, 8},
      {"alpha", &Peft::alpha, 8},
      {"rank_dropout", &Peft::rank_dropout, 0.0},
      {"module_dropout", &Peft::module_dropout, 0.0},
      {"use_effective_conv2d", &Peft::use_effective_conv2d, false},
      {"init_weights", &Peft::init_weights, true}};
  static const std::vector<Field> kLokr = {
      {"decompose_both", &Peft::decompose_both, false},
      {"decompose_factor", &Peft::decompose_factor, -1},
      {"rank_dropout_scale", &Peft::rank_dropout_scale, false}};
  static const std::vector<Field> kVera = {{"r", &Peft::r, 256},
                                           {"projection_prng_key", &Peft::projection_prng_key, 0},
                                           {"save_projection", &Peft::save_projection, true},
                                           {"vera_dropout", &Peft::vera_dropout, 0.0},
                                           {"d_initial", &Peft::d_initial, 0.1},
                                           {"init_weights", &Peft::init_weights, true}};
  static const std::vector<Field> kOft = {
      {"r", &Peft::r, 0},
      {"oft_block_size", &Peft::oft_block_size, 32},
      {"module_dropout", &Peft::module_dropout, 0.0},
      {"init_weights", &Peft::init_weights, true},
      {"coft", &Peft::coft, false},
      {"eps", &Peft::eps, 6e-5},
      {"block_share", &Peft::block_share, false},
      {"use_cayley_neumann", &Peft::use_cayley_neumann, true},
      {"num_cayley_neumann_terms", &Peft::num_cayley_neumann_terms, 5}};
  static const std::vector<Field> kBoft = {
      {"boft_block_size", &Peft::boft_block_size, 4},
      {"boft_block_num", &Peft::boft_block_num, 0},
      {"boft_n_butterfly_factor", &Peft::boft_n_butterfly_factor, 1},
      {"boft_dropout", &Peft::boft_dropout, 0.0},
      {"init_weights", &Peft::init_weights, true}};
  static const std::vector<Field> kPrompt = {
      {"num_virtual_tokens", &Peft::num_virtual_tokens, kNone}};
  static const std::vector<Field> kPromptTuning = {
      {"prompt_tuning_init", &Peft::prompt_tuning_init, "RANDOM"},
      {"prompt_tuning_init_text", &Peft::prompt_tuning_init_text, kNone}};
  static const std::vector<Field> kPTuning = {
      {"encoder_reparameterization_type", &Peft::encoder_reparameterization_type, "MLP"},
      {"encoder_hidden_size", &Peft::encoder_hidden_size, kNone},
      {"encoder_num_layers", &Peft::encoder_num_layers, 2},
      {"encoder_dropout", &Peft::encoder_dropout, 0.0}};
  static const std::vector<Field> kPrefix = {
      {"encoder_hidden_size", &Peft::encoder_hidden_size, kNone},
      {"prefix_projection", &Peft::prefix_projection, false},
      {"init_weights", &Peft::init_weights, kNone}};
  static const std::vector<Field> kTargets = {{"target_modules", &Peft::target_modules, kNone}};
  static const std::vector<Field> kBase = joined<Field>({kTargets, kExclude, kSaved});
  static const std::vector<Method> kMethods = {
      {"LORA", joined<Field>({kBase, kLayers, kBias, kLora}), kLoraFixed},
      {"ADALORA", joined<Field>({kBase, kLayers, kBias, kLora, kAdaLora}), kLoraFixed},
      {"IA3", joined<Field>({kBase, kIa3}), kFan},
      {"LOHA", joined<Field>({kBase, kLayers, kPatterns, kLycoris}), {}},
      {"LOKR", joined<Field>({kBase, kLayers, kPatterns, kLycoris, kLokr}), {}},
      {"VERA", joined<Field>({kTargets, kSaved, kLayers, kBias, kVera}), kFan},
      {"OFT", joined<Field>({kBase, kLayers, kBias, kOft}), kFan},
      {"BOFT", joined<Field>({kBase, kLayers, kBias, kBoft}), kFan},
      {"LN_TUNING", kBase, {}},
      {"PROMPT_TUNING", joined<Field>({kPrompt, kSaved, kPromptTuning}), {}},
      {"P_TUNING", joined<Field>({kPrompt, kSaved, kPTuning}), {}},
      {"PREFIX_TUNING", joined<Field>({kPrompt, kSaved, kPrefix}), {}},
  };
  return kMethods;
}

std::string in_case(std::string text, int (*change)(int)) {
  for (char& c : text) c = static_cast<char>(change(static_cast<unsigned char>(c)));
  return text;
}

const Method* find_method(const std::string& peft_type) {
  const auto found = std::find_if(methods().begin(), methods().end(), [&](const Method& method) {
    return method.peft_type == peft_type;
  });
  return found == methods().end() ? nullptr : &*found;
}

bool has_lora_fields(const std::string& method) { return method == "lora" || method == "adalora"; }

// Recipe to JSON.

template <typename Value>
Json to_json(const Value& value) {
  return value;
}
template <typename... Values>
Json to_json(const std::variant<Values...>& value) {
  return std::visit([](const auto& held) { return Json(held); }, value);
}
template <typename Value>
Json to_json(const std::optional<Value>& value) {
  return value ? to_json(*value) : Json(nullptr);
}
Json to_json(const std::map<std::string, int64_t>& value) {
  Json object = Json::object();
  for (const auto& [key, number] : value) object[key] = number;
  return object;
}

Json value_of(const Peft& peft, const Field& field) {
  const Json value =
      std::visit([&](const auto member) { return to_json(peft.*member); }, field.member);
  return value.is_null() ? field.otherwise : value;
}

// JSON to recipe: each returns what the value must be, or "" when it is.

std::string read(const Json& json, int64_t& value) {
  // Python writes 16.0 for an alpha that was computed.
  if (json.is_number_float() && json.get<double>() == std::floor(json.get<double>())) {
    value = static_cast<int64_t>(json.get<double>());
    return "";
  }
  if (!json.is_number_integer()) return "a whole number";
  value = json.get<int64_t>();
  return "";
}
std::string read(const Json& json, double& value) {
  if (!json.is_number()) return "a number";
  value = json.get<double>();
  return "";
}
std::string read(const Json& json, bool& value) {
  if (!json.is_boolean()) return "true or false";
  value = json.get<bool>();
  return "";
}
std::string read(const Json& json, std::string& value) {
  if (!json.is_string()) return "a string";
  value = json.get<std::string>();
  return "";
}
template <typename Value>
std::string read(const Json& json, std::vector<Value>& values) {
  if (!json.is_array()) return "a list";
  values.clear();
  for (const Json& element : json) {
    Value value{};
    if (const std::string wanted = read(element, value); !wanted.empty()) {
      return "a list, each " + wanted;
    }
    values.push_back(std::move(value));
  }
  return "";
}
std::string read(const Json& json, std::map<std::string, int64_t>& values) {
  values.clear();
  if (json.is_null()) return "";
  if (!json.is_object()) return "an object";
  for (const auto& [key, element] : json.items()) {
    if (const std::string wanted = read(element, values[key]); !wanted.empty()) {
      return "an object, each value " + wanted;
    }
  }
  return "";
}
template <typename First, typename Second>
std::string read(const Json& json, std::variant<First, Second>& value) {
  First first{};
  const std::string wanted = read(json, first);
  if (wanted.empty()) {
    value = std::move(first);
    return "";
  }
  Second second{};
  const std::string or_else = read(json, second);
  if (!or_else.empty()) return wanted + " or " + or_else;
  value = std::move(second);
  return "";
}
template <typename Value>
std::string read(const Json& json, std::optional<Value>& value) {
  value.reset();
  if (json.is_null()) return "";
  return read(json, value.emplace());
}

Json sorted(const Json& object) {
  std::map<std::string, Json> members;
  for (const auto& [key, value] : object.items()) members.emplace(key, value);
  Json result = Json::object();
  for (auto& [key, value] : members) result[key] = std::move(value);
  return result;
}

// AdaLoRA keeps of each module's init_r directions those that are true here. The tensors hold the
// kept ones alone, so that their order is all a reader needs.
constexpr const char* kAdaLoraKey = ".lora_E";

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

std::string read_adalora_rank_pattern(const Json& json, std::map<std::string, int64_t>& ranks) {
  if (json.is_null()) return "";
  if (!json.is_object()) return "an object";
  for (const auto& [key, kept] : json.items()) {
    std::vector<bool> directions;
    if (!kept.is_array()) return "an object of lists";
    for (const Json& one : kept) {
      if (!one.is_boolean()) return "an object of lists of true and false";
      directions.push_back(one.get<bool>());
    }
    const std::string module = key.ends_with(kAdaLoraKey)
                                   ? key.substr(0, key.size() - std::string(kAdaLoraKey).size())
                                   : key;
    ranks[module] = std::count(directions.begin(), directions.end(), true);
  }
  return "";
}

struct SubField {
  const char* key;
  Member member;
};
const std::vector<SubField>& loftq_fields() {
  static const std::vector<SubField> kFields = {{"loftq_bits", &Peft::loftq_bits},
                                                {"loftq_iter", &Peft::loftq_iter}};
  return kFields;
}
const std::vector<SubField>& eva_fields() {
  static const std::vector<SubField> kFields = {
      {"rho", &Peft::eva_rho},
      {"tau", &Peft::eva_tau},
      {"use_label_mask", &Peft::eva_use_label_mask},
      {"whiten", &Peft::eva_whiten},
      {"adjust_scaling_factors", &Peft::eva_adjust_scaling_factors}};
  return kFields;
}

// {} or null when none of its fields is set.
Json sub_config(const Peft& peft, const std::vector<SubField>& fields, const Json& unset) {
  Json object = Json::object();
  for (const SubField& field : fields) {
    const Json value =
        std::visit([&](const auto member) { return to_json(peft.*member); }, field.member);
    if (!value.is_null()) object[field.key] = value;
  }
  return object.empty() ? unset : object;
}

// IA3: PEFT wants each feedforward name to be among the target names, letter by letter.
Json feedforward_among(const Peft& peft, const NamesOrPattern& targets) {
  const auto* names = std::get_if<std::vector<std::string>>(&targets);
  const auto* feedforward = peft.feedforward_modules
                                ? std::get_if<std::vector<std::string>>(&*peft.feedforward_modules)
                                : nullptr;
  if (names == nullptr || feedforward == nullptr) return to_json(peft.feedforward_modules);
  std::vector<std::string> among;
  for (const std::string& name : *names) {
    if (is_feedforward(peft, name)) among.push_back(name);
  }
  return among;
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
    const Method* method = find_method(peft_type);
    if (method == nullptr) {
      std::vector<std::string> known;
      for (const Method& row : methods()) known.emplace_back(row.peft_type);
      throw UserError(file_.string() + ": peft_type = \"" + peft_type +
                      "\" is not supported: must be one of " + join(known));
    }
    peft_.method = in_case(peft_type, std::tolower);
    std::set<std::string> known = read_fields(*method);
    if (has_lora_fields(peft_.method)) read_lora_extras(known);
    for (const auto& [key, value] : json_.items()) {
      if (known.contains(key) || is_ignored(key)) continue;
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
    if (is_prompt_learning(peft_.method) && !peft_.num_virtual_tokens) {
      findings_.push_back(file_.string() + ": num_virtual_tokens is missing");
    }
    if (peft_.method == "oft" && !json_.contains("oft_block_size")) {
      findings_.push_back(file_.string() +
                          ": oft_block_size is missing: adapters of PEFT before 0.14 are another "
                          "method and have to be trained again");
    }
    check_values();
    if (!findings_.empty()) throw UserError(findings_);
    return peft_;
  }

 private:
  // What a recipe's [peft] may not say, a file may not either.
  void check_values() {
    recipes::Recipe recipe;
    recipe.peft = peft_;
    for (const auto& [name, unused, allowed] : recipes::find_peft_method(peft_.method)->fields) {
      const recipes::Key* key = recipes::find_key("peft." + name);
      const recipes::Value value = key ? key->get(recipe) : recipes::Value();
      if (std::holds_alternative<std::monostate>(value)) continue;
      std::string problem = recipes::problem_with(*key, value);
      const bool refused = !allowed.empty() && std::ranges::find(allowed, value) == allowed.end();
      if (problem.empty() && refused) problem = "is no value of " + peft_.method;
      if (problem.empty()) continue;
      findings_.push_back(file_.string() + ": " + name + " = " + recipes::to_toml(value) + ": " +
                          problem);
    }
  }

  void refuse(const std::string& key, const std::string& why) {
    findings_.push_back(file_.string() + ": " + key + " = " + json_[key].dump() + ": " + why);
  }

  std::set<std::string> read_fields(const Method& method) {
    std::set<std::string> known;
    for (const Field& field : method.fields) {
      known.insert(field.key);
      Json value = json_.contains(field.key) ? json_[field.key] : field.otherwise;
      if (std::string(field.key) == "trainable_token_indices" && value.is_object()) {
        value = tokens_of_embedding(value);
      }
      const std::string wanted =
          std::visit([&](const auto member) { return read(value, peft_.*member); }, field.member);
      if (!wanted.empty()) refuse(field.key, "must be " + wanted);
    }
    for (const Fixed& field : method.fixed) {
      known.insert(field.key);
      if (!json_.contains(field.key)) continue;
      const Json& value = json_[field.key];
      if (value != field.value && !says_nothing(value)) {
        refuse(field.key, "is a setting that Temper does not do");
      }
    }
    return known;
  }

  // {"embed_tokens": [...]} is the long form of the list; an output head of its own has another.
  Json tokens_of_embedding(const Json& object) {
    Json embedding;
    for (const auto& [module, ids] : object.items()) {
      if (module.ends_with("embed_tokens")) {
        embedding = ids;
      } else if (module.ends_with("lm_head")) {
        const std::string wanted = read(ids, peft_.head_token_indices);
        if (!wanted.empty()) refuse("trainable_token_indices", "lm_head's must be " + wanted);
      } else {
        refuse("trainable_token_indices", "'" + module + "' is neither embed_tokens nor lm_head");
      }
    }
    return embedding;
  }

  void read_sub_config(const std::string& key, const std::vector<SubField>& fields,
                       const std::set<std::string>& ignored) {
    if (!json_.contains(key) || says_nothing(json_[key])) return;
    if (!json_[key].is_object()) return refuse(key, "must be an object");
    for (const auto& [name, value] : json_[key].items()) {
      const auto field =
          std::find_if(fields.begin(), fields.end(),
                       [&, &wanted = name](const SubField& row) { return row.key == wanted; });
      if (field == fields.end()) {
        if (!ignored.contains(name)) refuse(key, "'" + name + "' is not known to Temper");
        continue;
      }
      const std::string wanted =
          std::visit([&, &given = value](const auto member) { return read(given, peft_.*member); },
                     field->member);
      if (!wanted.empty()) refuse(key, "'" + name + "' must be " + wanted);
    }
  }

  void read_lora_extras(std::set<std::string>& known) {
    known.insert({"rank_pattern", "loftq_config", "eva_config"});
    if (json_.contains("rank_pattern")) {
      const std::string wanted =
          peft_.method == "adalora"
              ? read_adalora_rank_pattern(json_["rank_pattern"], peft_.rank_pattern)
              : read(json_["rank_pattern"], peft_.rank_pattern);
      if (!wanted.empty()) refuse("rank_pattern", "must be " + wanted);
    }
    read_sub_config("loftq_config", loftq_fields(), {});
    read_sub_config("eva_config", eva_fields(), {"label_mask_value"});
    const auto* init =
        peft_.init_lora_weights ? std::get_if<std::string>(&*peft_.init_lora_weights) : nullptr;
    if (init != nullptr && (*init == "corda" || *init == "lora_ga" || *init == "mica")) {
      refuse("init_lora_weights",
             *init == "mica"
                 ? "is a method that Temper does not do"
                 : "the base weights that it belongs to cannot be made again from here: convert it "
                   "(PEFT: save_pretrained with path_initial_model_for_weight_conversion)");
    }
  }

  const fs::path file_;
  const Json& json_;
  Peft peft_;
  std::vector<std::string> findings_;
};

}  // namespace

Json adapter_config(const Peft& peft, const std::string& base, const NamesOrPattern& target_modules,
                    const ModelConfig& model) {
  const Method* method = find_method(in_case(peft.method, std::toupper));
  TEMPER_CHECK(method != nullptr, "no such method: " + peft.method);
  Json json = {{"auto_mapping", nullptr},
               {"base_model_name_or_path", base.empty() ? Json(nullptr) : Json(base)},
               {"inference_mode", true},
               {"peft_type", method->peft_type},
               {"peft_version", kPeftVersion},
               {"revision", nullptr},
               {"task_type", model.num_labels > 0 ? "SEQ_CLS" : "CAUSAL_LM"}};
  for (const Field& field : method->fields) json[field.key] = value_of(peft, field);
  for (const Fixed& field : method->fixed) json[field.key] = field.value;
  if (json.contains("target_modules")) json["target_modules"] = to_json(target_modules);
  if (peft.method == "ia3") json["feedforward_modules"] = feedforward_among(peft, target_modules);
  if (has_lora_fields(peft.method)) {
    json["rank_pattern"] =
        peft.method == "adalora" ? adalora_rank_pattern(peft) : to_json(peft.rank_pattern);
    json["loftq_config"] = sub_config(peft, loftq_fields(), Json::object());
    json["eva_config"] = sub_config(peft, eva_fields(), nullptr);
    if (!json["eva_config"].is_null()) json["eva_config"]["label_mask_value"] = -100;
    json["eva_config"] = json["eva_config"].is_null() ? Json(nullptr) : sorted(json["eva_config"]);
  }
  if (peft.head_token_indices) {
    Json tokens = Json::object();
    if (peft.trainable_token_indices) tokens["embed_tokens"] = *peft.trainable_token_indices;
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

Peft peft_of_config(const Json& config, const fs::path& where) {
  return Reader(where, config).read_all();
}

}  // namespace temper::trainer
