#include "trainer/adapters/adapters.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "parallel/seed.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/targets.h"

namespace temper::trainer {

namespace {

constexpr const char* kPrefix = "base_model.model.";

std::string module_of(const std::string& parameter) {
  return parameter.substr(0, parameter.rfind('.'));
}

bool is_norm(const std::string& module) { return module.ends_with("norm"); }

// Linear layers of the blocks, then what else has a weight: embedding, norms, output head.
std::vector<TargetModule> modules_of(Model& model, const std::vector<LinearSlot>& slots) {
  std::vector<TargetModule> modules;
  for (const LinearSlot& slot : slots) modules.push_back({.name = slot.module});
  for (const Parameter& parameter : model.parameters()) {
    const std::string module = module_of(parameter.name);
    const bool known = std::any_of(modules.begin(), modules.end(),
                                   [&](const TargetModule& m) { return m.name == module; });
    const bool head = module == "lm_head";
    if (!known) modules.push_back({.name = module, .linear = head, .output_head = head});
  }
  return modules;
}

bool changes_base(const recipes::Peft& peft) {
  if (peft.method != "lora") return false;
  const auto* word = std::get_if<std::string>(&peft.init_lora_weights.value());
  return word && (word->starts_with("pissa") || *word == "olora");
}

}  // namespace

at::ScalarType adapter_dtype(const recipes::Peft& peft) {
  return peft.dtype == recipes::Dtype::kFp32   ? at::kFloat
         : peft.dtype == recipes::Dtype::kBf16 ? at::kBFloat16
                                               : at::kHalf;
}

Adapters::Adapters(const recipes::Peft& peft, Model& model, const ModelOptions& options)
    : peft_(peft), model_(model), context_(std::make_shared<AdapterContext>()) {
  const std::vector<LinearSlot> slots = model.linears();
  const std::vector<TargetModule> modules = modules_of(model, slots);
  set_default_targets(peft_, model.config().model_type);
  targets_ = find_targets(peft_, model.config().model_type, modules);
  if (peft_.target_modules) saved_targets_ = trainer::saved_targets(peft_, modules);
  if (options.quantize && changes_base(peft_)) {
    throw UserError("peft.init_lora_weights = \"" + std::get<std::string>(*peft_.init_lora_weights) +
                    "\": takes a part out of the base's weights, which are quantised here: not "
                    "together with model.quantize");
  }
  set_base_free(options);

  AdapterTensors tensors(options, adapter_dtype(peft_), model.parameters());
  if (is_prompt_learning(peft_.method)) {
    prompt_ = std::make_unique<PromptLearning>(peft_, model, tensors, context_);
  }
  std::vector<LinearSlot> group;
  const auto close_group = [&] {
    if (!group.empty()) wrap(*group.front().projection, group, tensors);
    group.clear();
  };
  size_t wrapped = 0;
  for (const LinearSlot& slot : slots) {
    if (!group.empty() && group.front().projection != slot.projection) close_group();
    if (std::find(targets_.begin(), targets_.end(), slot.module) == targets_.end()) continue;
    group.push_back(slot);
    ++wrapped;
  }
  close_group();
  if (peft_.method != "ln_tuning" && wrapped != targets_.size()) {
    for (const std::string& target : targets_) {
      if (adapters_.contains(target)) continue;
      throw UserError("peft.target_modules: " + target + " is not a linear layer of a block: " +
                      peft_.method + " adapts those only (peft.modules_to_save trains a whole module)");
    }
  }
}

void Adapters::train_along(Parameter& parameter, const std::string& key,
                           const ModelOptions& options) {
  make_trainable(parameter, options);
  keys_.emplace_back(key, parameter.name);
}

// What of the base is trained along with the adapters, under PEFT's names.
void Adapters::set_base_free(const ModelOptions& options) {
  const std::string bias = peft_.bias.value_or("none");
  const std::vector<std::string> whole = peft_.modules_to_save.value_or(std::vector<std::string>{});
  for (Parameter& parameter : model_.parameters()) {
    const std::string module = module_of(parameter.name);
    const bool target = std::find(targets_.begin(), targets_.end(), module) != targets_.end();
    if (names_module(whole, module)) {
      if (model_.config().tie_word_embeddings && parameter.value.is_same(model_.head().weight)) {
        throw UserError("peft.modules_to_save: " + module +
                        " shares its weights with the output head in this model "
                        "(tie_word_embeddings), and a copy would part them: leave it out");
      }
      train_along(parameter, kPrefix + parameter.name, options);
    } else if (peft_.method == "ln_tuning" && target) {
      if (!is_norm(module)) {
        throw UserError("peft.target_modules: " + module + " is no norm, and ln_tuning trains norms alone");
      }
      train_along(parameter, kPrefix + module + ".ln_tuning_layers.weight", options);
    } else if (parameter.name.ends_with(".bias") &&
               (bias == "all" || (bias.ends_with("_only") && target))) {
      train_along(parameter, kPrefix + module + (target ? ".base_layer.bias" : ".bias"), options);
    }
  }
  for (const LinearSlot& slot : model_.linears()) {
    if (!slot.projection->quantized.empty() && names_module(whole, slot.module)) {
      throw UserError("peft.modules_to_save: " + slot.module +
                      " is quantised (model.quantize), so it cannot be trained");
    }
  }
}

void Adapters::wrap(Projection& projection, const std::vector<LinearSlot>& slots,
                    AdapterTensors& tensors) {
  slots_.insert(slots_.end(), slots.begin(), slots.end());
  const size_t before = model_.parameters().size();
  if (peft_.method == "lora") {
    wrap_low_rank(projection, slots, tensors);
  } else {
    projection.adapted.resize(projection.rows.size());
    for (const LinearSlot& slot : slots) {
      const LinearSite site{.module = slot.module,
                            .in_features = slot.in_features,
                            .out_features = slot.out_features,
                            .has_bias = !projection.biases.empty()};
      const std::shared_ptr<LinearAdapter> adapter = build_adapter(peft_, site, tensors);
      adapters_[slot.module] = adapter;
      projection.adapted[slot.part] = [adapter, context = context_](const at::Tensor& x,
                                                                    const BaseLinear& base) {
        return adapter->forward(x, base, *context);
      };
    }
  }
  for (size_t i = before; i < model_.parameters().size(); ++i) {
    keys_.emplace_back(model_.parameters()[i].name, model_.parameters()[i].name);
  }
}

void Adapters::wrap_low_rank(Projection& projection, const std::vector<LinearSlot>& slots,
                             AdapterTensors& tensors) {
  int64_t ranks = 0;
  std::vector<std::pair<LinearSite, int64_t>> sites;
  for (const LinearSlot& slot : slots) {
    sites.push_back({{.module = slot.module,
                      .in_features = slot.in_features,
                      .out_features = slot.out_features,
                      .has_bias = !projection.biases.empty()},
                     0});
    sites.back().second = lora_rank(peft_, sites.back().first);
    ranks += sites.back().second;
  }
  auto low_rank = std::make_shared<LowRank>();
  low_rank->a = tensors.empty({ranks, slots.front().in_features});
  low_rank->dropout = peft_.lora_dropout.value();
  low_rank->context = context_;
  const bool dora = peft_.use_dora.value();
  if (dora) projection.adapted.resize(projection.rows.size());
  int64_t first = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    const auto& [site, rank] = sites[i];
    const auto lora = std::make_shared<Lora>(peft_, site, rank, low_rank->a.narrow(0, first, rank), tensors);
    adapters_[site.module] = lora;
    first += rank;
    if (dora) {
      projection.adapted[slots[i].part] = [lora, context = context_](const at::Tensor& x,
                                                                     const BaseLinear& base) {
        return lora->forward(x, base, *context);
      };
    } else {
      low_rank->parts.push_back(lora->part(slots[i].part));
    }
  }
  if (!dora) projection.low_rank = std::move(low_rank);
}

void Adapters::initialize(int64_t seed, std::span<const int32_t> prompt_text) {
  const at::NoGradGuard off;
  if (prompt_) {
    prompt_->initialize(model_.embedding().weight, parallel::seed_of(seed, "adapter/prompt_encoder"),
                        prompt_text);
  }
  for (const LinearSlot& slot : slots_) {
    const BaseWeight weight = [&] { return slot.projection->part_weight(slot.part, at::kFloat); };
    const at::Tensor changed =
        adapters_.at(slot.module)->initialize(weight, parallel::seed_of(seed, "adapter/" + slot.module));
    if (!changed.defined()) continue;
    // In place, through the parameter: its dtype rounds.
    for (Parameter& parameter : model_.parameters()) {
      if (parameter.name == slot.module + ".weight") parameter.value.copy_(changed.to(parameter.dtype));
    }
  }
  refresh_values(model_);
  if (!changes_base(peft_)) return;
  for (const auto& [key, tensor] : tensors()) start_[key] = tensor.clone();
}

NamedTensors Adapters::tensors() const {
  NamedTensors tensors;
  for (const auto& [key, name] : keys_) {
    for (const Parameter& parameter : model_.parameters()) {
      if (parameter.name == name) tensors.emplace_back(key, parameter.master.detach());
    }
  }
  if (prompt_) tensors.emplace_back("prompt_embeddings", prompt_->stored());
  return tensors;
}

std::pair<recipes::Peft, NamedTensors> Adapters::plain() const {
  recipes::Peft peft = peft_;
  NamedTensors trained = tensors();
  if (start_.empty()) return {std::move(peft), std::move(trained)};
  // W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]: twice the rank, and alpha so that s stays.
  for (auto& [key, tensor] : trained) {
    if (key.ends_with("lora_A.weight")) tensor = at::cat({tensor, start_.at(key)}, 0);
    if (key.ends_with("lora_B.weight")) tensor = at::cat({tensor, -start_.at(key)}, 1);
  }
  peft.init_lora_weights = true;
  *peft.r *= 2;
  for (auto& [module, rank] : peft.rank_pattern) rank *= 2;
  *peft.lora_alpha *= 2;
  for (auto& [module, alpha] : peft.alpha_pattern) alpha *= 2;
  if (peft.use_rslora.value()) {
    // alpha / sqrt r would need sqrt 2 here, which is no whole number: B carries it instead.
    for (auto& [key, tensor] : trained) {
      if (key.ends_with("lora_B.weight")) tensor = tensor * std::sqrt(0.5);
    }
  }
  return {std::move(peft), std::move(trained)};
}

std::vector<std::string> Adapters::modules() const {
  std::vector<std::string> modules;
  for (const LinearSlot& slot : slots_) modules.push_back(slot.module);
  return modules;
}

void Adapters::merge(const std::string& module, at::Tensor& weight, at::Tensor& bias) const {
  const auto found = adapters_.find(module);
  if (found == adapters_.end()) return;
  if (!start_.empty()) {
    const std::string prefix = kPrefix + module;
    weight -= at::mm(start_.at(prefix + ".lora_B.weight"), start_.at(prefix + ".lora_A.weight")) *
              std::static_pointer_cast<Lora>(found->second)->scale();
  }
  found->second->merge(weight, bias);
}

std::unique_ptr<Adapters> load_adapter(const std::filesystem::path& directory, Model& model,
                                       const ModelOptions& options) {
  const at::NoGradGuard off;
  auto adapters = std::make_unique<Adapters>(without_encoder(read_adapter_config(directory)), model, options);
  // What is stored is all there is, but for a base that the init has changed.
  if (changes_base(adapters->peft())) adapters->initialize(0);
  read_adapter(directory, adapters->tensors());
  refresh_values(model);
  return adapters;
}

data::Json adapter_config(const Adapters& adapters, const std::string& base) {
  return adapter_config(adapters.plain().first, base, adapters.saved_targets(),
                        adapters.model_config());
}

NamedTensors merged_weights(Model& model, const Adapters& adapters,
                            const std::function<at::Tensor(const std::string& name)>& base,
                            at::ScalarType dtype) {
  if (is_prompt_learning(adapters.peft().method)) {
    throw UserError("merging: what " + adapters.peft().method +
                    " trains stands in front of the text, in none of the base's weights: use it as an "
                    "adapter (export without merging)");
  }
  const at::NoGradGuard off;
  const std::vector<LinearSlot> slots = model.linears();
  std::map<std::string, at::Tensor> trained;  // of the base
  std::vector<std::string> names;
  for (const Parameter& parameter : model.parameters()) {
    if (parameter.name.starts_with("base_model.")) continue;  // of the adapters
    names.push_back(parameter.name);
    if (parameter.trainable()) trained[parameter.name] = parameter.master.detach();
  }
  for (const LinearSlot& slot : slots) {
    if (!slot.projection->quantized.empty()) names.push_back(slot.module + ".weight");
  }
  const auto original = [&](const std::string& name) {
    const auto found = trained.find(name);
    return found != trained.end() ? found->second : base(name);
  };
  std::map<std::string, at::Tensor> merged;
  for (const std::string& module : adapters.modules()) {
    const bool has_bias = std::find(names.begin(), names.end(), module + ".bias") != names.end();
    at::Tensor weight = original(module + ".weight").to(at::kFloat, false, /*copy=*/true);
    at::Tensor bias = has_bias ? original(module + ".bias").to(at::kFloat, false, true) : at::Tensor();
    adapters.merge(module, weight, bias);
    merged[module + ".weight"] = weight.to(dtype);
    if (has_bias) merged[module + ".bias"] = bias.to(dtype);
  }
  NamedTensors weights;
  for (const std::string& name : names) {
    const auto found = merged.find(name);
    weights.emplace_back(name, found != merged.end() ? found->second : original(name));
  }
  return weights;
}

}  // namespace temper::trainer
