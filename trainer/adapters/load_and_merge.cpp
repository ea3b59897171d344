// Adapters from files and into weights: what is declared last in adapters.h.
#include <algorithm>
#include <map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "trainer/adapters/adapter_config.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/adapters.h"
#include "trainer/models/value_head.h"

namespace temper::trainer {

namespace {

constexpr const char* kPrefix = "base_model.model.";

// The file says what its tensors are to be kept in; the config does not.
recipes::Dtype stored_dtype(const SafetensorsFile& file) {
  const std::vector<std::string> names = file.names();
  const at::ScalarType type = names.empty() ? at::kFloat : file.dtype(names.front());
  return type == at::kBFloat16 ? recipes::Dtype::kBf16
         : type == at::kHalf   ? recipes::Dtype::kFp16
                               : recipes::Dtype::kFp32;
}

}  // namespace

std::unique_ptr<Adapters> adapters_of(const CombinedLora& combined, Model& model,
                                      const ModelOptions& options) {
  const at::NoGradGuard off;
  recipes::Recipe recipe;
  recipe.peft.method = "lora";
  recipes::fill_in_peft(recipe);
  recipe.peft.r = recipe.peft.lora_alpha = combined.r;
  std::vector<std::string> modules;
  for (const auto& [module, factors] : combined.modules) modules.push_back(module);
  recipe.peft.target_modules = modules;
  auto adapters = std::make_unique<Adapters>(recipe.peft, model, options, /*from_file=*/true);
  for (const auto& [key, tensor] : adapters->tensors()) {
    const std::string module =
        key.substr(std::string(kPrefix).size(), key.rfind(".lora_") - std::string(kPrefix).size());
    const LoraFactors& factors = combined.modules.at(module);
    at::Tensor(tensor).copy_(key.ends_with(".lora_A.weight") ? factors.a : factors.b);
  }
  refresh_values(model);
  return adapters;
}

recipes::Peft peft_of_directory(const std::filesystem::path& directory) {
  recipes::Peft peft = without_encoder(read_adapter_config(directory));
  peft.dtype = stored_dtype(SafetensorsFile(adapter_weights(directory)));
  return peft;
}

std::unique_ptr<Adapters> load_adapter(const std::filesystem::path& directory, Model& model,
                                       const ModelOptions& options, const StoredBase& stored) {
  const at::NoGradGuard off;
  const recipes::Peft peft = peft_of_directory(directory);
  check_base_of_start(peft, model.config(), options.weights);
  auto adapters = std::make_unique<Adapters>(peft, model, options, /*from_file=*/true);
  // What is stored is all there is, but for a base that the init has changed.
  if (changes_base(adapters->peft())) adapters->initialize(0, {}, stored);
  NamedTensors optional;
  for (const auto& [key, name] : adapters->saved_base()) {
    for (const Parameter& parameter : model.parameters()) {
      if (parameter.name == name) optional.emplace_back(key, parameter.value);
    }
  }
  for (const auto& [key, tensor] : read_adapter(directory, adapters->tensors(), optional)) {
    for (const auto& [known, name] : adapters->saved_base()) {
      if (known == key) adapters->bring_base(name, tensor);
    }
  }
  refresh_values(model);
  return adapters;
}

void check_base_of_start(const recipes::Peft& peft, const ModelConfig& config,
                         at::ScalarType weights) {
  if (!starts_quantised(peft) || weights == at::kFloat) return;
  const std::string in_memory = weights == at::kBFloat16 ? "bfloat16" : "float16";
  if (config.stored_dtype.empty() || config.stored_dtype == in_memory) return;
  throw UserError("peft.init_lora_weights = \"loftq\": quantises the base as it is stored (" +
                  config.stored_dtype + "), which " + in_memory +
                  " would round before: set model.dtype = \"fp32\"");
}

data::Json adapter_config(const Adapters& adapters, const std::string& base) {
  return adapter_config(adapters.plain().first, base, adapters.saved_targets(),
                        adapters.model_config());
}

NamedTensors saved_tensors(const Adapters& adapters, at::ScalarType dtype,
                           const std::function<at::Tensor(const std::string& name)>& base) {
  NamedTensors tensors;
  for (const auto& [key, tensor] : adapters.plain().second) {
    tensors.emplace_back(key, tensor.to(dtype).contiguous());
  }
  for (const auto& [key, name] : adapters.saved_base()) {
    const auto brought = adapters.brought_base().find(name);
    tensors.emplace_back(key,
                         brought != adapters.brought_base().end() ? brought->second : base(name));
  }
  return tensors;
}

NamedTensors merged_weights(Model& model, const Adapters& adapters,
                            const std::function<at::Tensor(const std::string& name)>& base,
                            at::ScalarType dtype) {
  const at::NoGradGuard off;
  adapters.check_mergeable();
  const std::vector<LinearSlot> slots = model.linears();
  std::map<std::string, at::Tensor> trained;  // of the base
  std::vector<std::string> names;
  for (const Parameter& parameter : model.parameters()) {
    // Of the adapters, or of training alone.
    if (parameter.name.starts_with("base_model.") || of_value_head(parameter)) continue;
    names.push_back(parameter.name);
    if (parameter.trainable()) trained[parameter.name] = parameter.master.detach();
  }
  for (const LinearSlot& slot : slots) {
    if (!slot.projection->quantized.empty()) names.push_back(slot.module + ".weight");
  }
  const auto original = [&](const std::string& name) {
    const auto found = trained.find(name);
    if (found != trained.end()) return found->second;
    const auto brought = adapters.brought_base().find(name);
    return brought != adapters.brought_base().end() ? brought->second.to(dtype) : base(name);
  };
  // Where the adapters are, laid out in memory as in the file: PEFT sums in that order.
  const auto copy_of = [&](const std::string& name) {
    return original(name).to(model.head().weight.device(), at::kFloat, /*non_blocking=*/false,
                             /*copy=*/true);
  };
  std::map<std::string, at::Tensor> merged;
  for (const std::string& module : adapters.modules()) {
    const bool has_bias = std::find(names.begin(), names.end(), module + ".bias") != names.end();
    at::Tensor weight = copy_of(module + ".weight");
    at::Tensor bias = has_bias ? copy_of(module + ".bias") : at::Tensor();
    adapters.merge(module, weight, bias, dtype);
    merged[module + ".weight"] = weight.to(dtype).cpu();
    if (has_bias) merged[module + ".bias"] = bias.to(dtype).cpu();
  }
  for (const std::string& name : adapters.token_matrices()) {
    at::Tensor weight = copy_of(name);
    adapters.merge_tokens(name, weight, dtype);
    merged[name] = weight.to(dtype).cpu();
  }
  NamedTensors weights;
  for (const std::string& name : names) {
    const auto found = merged.find(name);
    weights.emplace_back(name, found != merged.end() ? found->second : original(name));
  }
  return weights;
}

}  // namespace temper::trainer
