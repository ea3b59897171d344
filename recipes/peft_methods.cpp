#include "recipes/peft_methods.h"

#include <algorithm>
#include <map>
#include <utility>

#include "recipes/schema.h"

namespace temper::recipes {
namespace {

constexpr auto& fields = make_fields;

const std::map<std::string, int64_t> kNoPattern;

std::vector<PeftMethod> make_table() {
  return {
      {"lora", "Low-rank update W + alpha / r B A (arXiv:2106.09685).", true,
       fields("target_modules target_parameters exclude_modules modules_to_save "
              "layers_to_transform layers_pattern trainable_token_indices",
              {{"r", 8},
               {"lora_alpha", 8},
               {"lora_dropout", 0.0},
               {"bias", "none", {"none", "all", "lora_only"}},
               {"use_rslora", false},
               {"use_dora", false},
               {"lora_bias", false},
               {"init_lora_weights", true},
               {"rank_pattern", kNoPattern},
               {"alpha_pattern", kNoPattern},
               {"loftq_config.loftq_bits", 4, {4, 8}},
               {"loftq_config.loftq_iter", 1},
               {"eva_config.rho", 2.0},
               {"eva_config.tau", 0.99},
               {"eva_config.use_label_mask", true},
               {"eva_config.whiten", false},
               {"eva_config.adjust_scaling_factors", true}})},
      {"adalora", "LoRA as P Lambda Q whose ranks share a falling budget (arXiv:2303.10512).", true,
       fields("target_modules exclude_modules modules_to_save layers_to_transform layers_pattern "
              "trainable_token_indices total_step",
              {{"lora_alpha", 8},
               {"lora_dropout", 0.0},
               {"bias", "none", {"none", "all", "lora_only"}},
               {"init_lora_weights", true, {true, false}},
               {"target_r", 8},
               {"init_r", 12},
               {"tinit", 0},
               {"tfinal", 0},
               {"deltaT", 1},
               {"beta1", 0.85},
               {"beta2", 0.85},
               {"orth_reg_weight", 0.5}})},
      {"ia3", "One factor for each output, or input, of a layer (arXiv:2205.05638).", true,
       fields("target_modules exclude_modules feedforward_modules modules_to_save",
              {{"init_ia3_weights", true}})},
      {"loha", "Elementwise product of two low-rank updates (arXiv:2108.06098).", true,
       fields("target_modules exclude_modules modules_to_save layers_to_transform layers_pattern",
              {{"r", 8},
               {"alpha", 8},
               {"rank_dropout", 0.0},
               {"module_dropout", 0.0},
               {"use_effective_conv2d", false},
               {"init_weights", true, {true, false}},
               {"rank_pattern", kNoPattern},
               {"alpha_pattern", kNoPattern}})},
      {"lokr", "Kronecker product of two small matrices (arXiv:2309.14859).", true,
       fields("target_modules exclude_modules modules_to_save layers_to_transform layers_pattern",
              {{"r", 8},
               {"alpha", 8},
               {"rank_dropout", 0.0},
               {"module_dropout", 0.0},
               {"use_effective_conv2d", false},
               {"decompose_both", false},
               {"decompose_factor", -1},
               {"rank_dropout_scale", false},
               {"init_weights", true, {true, false, "lycoris"}},
               {"rank_pattern", kNoPattern},
               {"alpha_pattern", kNoPattern}})},
      {"vera", "Two vectors a layer over random projections that all share (arXiv:2310.11454).",
       true,
       fields("target_modules modules_to_save layers_to_transform layers_pattern",
              {{"r", 256},
               {"projection_prng_key", 0},
               {"save_projection", true},
               {"vera_dropout", 0.0},
               {"d_initial", 0.1},
               {"bias", "none", {"none", "all", "vera_only"}},
               {"init_weights", true, {true, false}}})},
      {"oft", "Block-diagonal rotation of a layer's inputs (arXiv:2306.07280).", true,
       fields("target_modules exclude_modules modules_to_save layers_to_transform layers_pattern",
              {{"r", 0},
               {"oft_block_size", 32},
               {"module_dropout", 0.0},
               {"bias", "none", {"none", "all", "oft_only"}},
               {"init_weights", true, {true, false}},
               {"coft", false},
               {"eps", 6e-5},
               {"block_share", false},
               {"use_cayley_neumann", true},
               {"num_cayley_neumann_terms", 5}})},
      {"boft", "Rotation as a product of sparse butterfly factors (arXiv:2311.06243).", true,
       fields("target_modules exclude_modules modules_to_save layers_to_transform layers_pattern",
              {{"boft_block_size", 4},
               {"boft_block_num", 0},
               {"boft_n_butterfly_factor", 1},
               {"boft_dropout", 0.0},
               {"bias", "none", {"none", "all", "boft_only"}},
               {"init_weights", true, {true, false}}})},
      {"ln_tuning", "The norms alone (arXiv:2312.11420).", true,
       fields("target_modules exclude_modules modules_to_save", {})},
      {"prefix_tuning",
       "Keys and values before the first token, in every layer (arXiv:2101.00190).", false,
       fields("num_virtual_tokens encoder_hidden_size modules_to_save",
              {{"init_weights", {}, {"zero"}}, {"prefix_projection", false}})},
      {"prompt_tuning", "Embeddings before the first token (arXiv:2104.08691).", false,
       fields("num_virtual_tokens prompt_tuning_init_text modules_to_save",
              {{"prompt_tuning_init", "RANDOM"}})},
      {"p_tuning", "Embeddings before the first token, made by a small network (arXiv:2103.10385).",
       false,
       fields("num_virtual_tokens encoder_hidden_size modules_to_save",
              {{"encoder_reparameterization_type", "MLP"},
               {"encoder_num_layers", 2},
               {"encoder_dropout", 0.0}})},
  };
}

std::string_view without_table(std::string_view key) {
  constexpr std::string_view kTable = "peft.";
  return key.starts_with(kTable) ? key.substr(kTable.size()) : key;
}

}  // namespace

const PeftField* PeftMethod::field(std::string_view key) const {
  const std::string_view last = without_table(key);
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [&](const PeftField& row) { return row.key == last; });
  return found == fields.end() ? nullptr : &*found;
}

const std::vector<PeftMethod>& peft_methods() {
  static const std::vector<PeftMethod> table = make_table();
  return table;
}

const PeftMethod* find_peft_method(std::string_view name) {
  const std::vector<PeftMethod>& methods = peft_methods();
  const auto found = std::find_if(methods.begin(), methods.end(),
                                  [&](const PeftMethod& method) { return method.name == name; });
  return found == methods.end() ? nullptr : &*found;
}

std::vector<std::string> peft_method_names() {
  std::vector<std::string> names;
  for (const PeftMethod& method : peft_methods()) names.push_back(method.name);
  return names;
}

std::vector<std::string> methods_with(std::string_view key) {
  std::vector<std::string> names;
  for (const PeftMethod& method : peft_methods()) {
    if (is_of_every_method(key) || method.field(key)) names.push_back(method.name);
  }
  return names;
}

std::string_view init_of(std::string_view key) {
  const std::string_view name = without_table(key);
  if (name.starts_with("eva_config.")) return "eva";
  return name.starts_with("loftq_config.") ? "loftq" : "";
}

bool is_of_every_method(std::string_view key) {
  const std::string_view name = without_table(key);
  return name == "method" || name == "dtype";
}

void fill_in_peft(Recipe& recipe) {
  const PeftMethod* method = find_peft_method(recipe.peft.method);
  if (!method) return;
  for (const PeftField& field : method->fields) {
    const std::string_view init = init_of(field.key);
    const bool acts =
        init.empty() || recipe.peft.init_lora_weights == BoolOrWord(std::string(init));
    const Key& key = *find_key("peft." + field.key);
    if (acts && key.get(recipe) == Value{}) key.set(recipe, field.initial);
  }
}

bool changes_base(const Peft& peft) {
  if (peft.method != "lora" || !peft.init_lora_weights) return false;
  const auto* word = std::get_if<std::string>(&*peft.init_lora_weights);
  return word && (word->starts_with("pissa") || *word == "olora" || *word == "loftq");
}

}  // namespace temper::recipes
