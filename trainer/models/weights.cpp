#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "data/io/json.h"
#include "parallel/seed.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/models/decoder_names.h"
#include "trainer/models/model.h"
#include "trainer/models/quantization.h"
#include "trainer/models/quantized_files.h"
#include "trainer/models/value_head.h"

namespace temper::trainer {
namespace {

namespace fs = std::filesystem;

// Where each tensor of a model directory is: the file, and its name there.
struct Place {
  std::string file, name;
};
struct StoredWeights {
  std::map<std::string, SafetensorsFile> files;
  std::map<std::string, Place> places;  // by the model's names
};

constexpr const char* kScore = "score.weight";
constexpr const char* kHead = "lm_head.weight";

bool is_head(const std::string& name) { return name == kScore || name == kHead; }

StoredWeights open_index(const fs::path& directory, const fs::path& index,
                         std::vector<std::string>& findings) {
  const data::Json json = data::read_json(index);
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object()) {
    throw UserError(index.string() + ": has no object \"weight_map\" (tensor to file)");
  }
  StoredWeights stored;
  std::set<std::string> missing;
  for (const auto& [name, file] : map->items()) {
    // A file name and nothing else: a path could lead out of the directory.
    if (!file.is_string() ||
        fs::path(file.get<std::string>()).filename() != file.get<std::string>()) {
      findings.push_back(index.string() + ": weight_map." + name +
                         ": must be the name of a file beside it");
      continue;
    }
    const std::string shard = file.get<std::string>();
    if (missing.contains(shard)) continue;
    if (!stored.files.contains(shard)) {
      if (!fs::exists(directory / shard)) {
        findings.push_back((directory / shard).string() + ": is missing, but " +
                           index.filename().string() + " names it: download it again");
        missing.insert(shard);
        continue;
      }
      stored.files.emplace(shard, SafetensorsFile(directory / shard));
    }
    if (!stored.files.at(shard).contains(name)) {
      findings.push_back((directory / shard).string() + ": has no '" + name + "', but " +
                         index.filename().string() + " says so");
      continue;
    }
    stored.places[name] = {shard, name};
  }
  return stored;
}

StoredWeights open_files(const fs::path& directory, std::vector<std::string>& findings) {
  const fs::path index = directory / "model.safetensors.index.json";
  if (fs::exists(index)) return open_index(directory, index, findings);
  const std::string name = "model.safetensors";
  if (!fs::exists(directory / name)) {
    if (fs::exists(directory / "pytorch_model.bin") ||
        fs::exists(directory / "pytorch_model.bin.index.json")) {
      throw UserError(directory.string() +
                      ": holds only pytorch_model.bin, a pickle, which may run code when it is "
                      "read: convert it to "
                      "model.safetensors (transformers: model.save_pretrained)");
    }
    throw UserError(directory.string() +
                    ": has neither model.safetensors nor model.safetensors.index.json");
  }
  StoredWeights stored;
  const SafetensorsFile& file =
      stored.files.emplace(name, SafetensorsFile(directory / name)).first->second;
  for (const std::string& tensor : file.names()) stored.places[tensor] = {name, tensor};
  return stored;
}

// A file of the model without its head leaves out the prefix that transformers gives it with one.
StoredWeights open_stored(const fs::path& directory, const ModelConfig& config,
                          std::vector<std::string>& findings) {
  StoredWeights stored = open_files(directory, findings);
  const std::string prefix = names_of(config).optional_prefix;
  if (prefix.empty()) return stored;
  std::map<std::string, Place> places;
  for (auto& [name, place] : stored.places) {
    const bool whole = name.starts_with(prefix) || is_head(name) || stored.places.contains(prefix + name);
    places[whole ? name : prefix + name] = std::move(place);
  }
  stored.places = std::move(places);
  return stored;
}

StoredTensor find_stored(const StoredWeights& stored, const fs::path& directory,
                         const std::string& name) {
  const auto found = stored.places.find(name);
  if (found == stored.places.end()) return {};
  const Place& place = found->second;
  return {(directory / place.file).string(), stored.files.at(place.file).tensor(place.name)};
}

// By the names that bitsandbytes' layers save beside their weights; "none" where there are none.
std::string kind_of(const StoredWeights& stored) {
  for (const auto& [name, place] : stored.places) {
    if (name.ends_with(".quant_state.bitsandbytes__nf4")) return "nf4";
    if (name.ends_with(".quant_state.bitsandbytes__fp4")) return "fp4";
    if (name.ends_with(".SCB")) return "int8";
  }
  return "none";
}

// Buffers that older versions of transformers saved along with the weights.
bool is_known_buffer(const std::string& name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with(".position_ids") ||
         name.ends_with(".masked_bias") || name.ends_with(".attn.bias");
}

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + "]";
}

bool is_finite(const at::Tensor& tensor) {
  const auto [low, high] = at::aminmax(tensor);
  return std::isfinite(low.item<float>()) && std::isfinite(high.item<float>());
}

bool fits_float16(const at::Tensor& tensor) {
  const auto [low, high] = at::aminmax(tensor);
  return at::isfinite(at::stack({low, high}).to(at::kHalf)).all().item<bool>();
}

// What forward sees of a float32 master.
void refresh_value(Parameter& parameter) {
  if (parameter.master.is_same(parameter.value)) return;
  parameter.value.copy_(parameter.master.to(parameter.dtype));
}

// A linear layer's weight, quantised from what its type in memory would be.
void store_quantized(const LinearSlot& slot, const at::Tensor& weight,
                     const ModelOptions& options) {
  const bool double_quant = options.double_quant && *options.quantize != QuantKind::kInt8;
  slot.projection->quantized[slot.part] =
      on_device(quantize(weight.to(options.weights), *options.quantize, double_quant, slot.module),
                options.device);
}

// Stored weights into a parameter; one without a master is rounded at once.
void store(Model& model, Parameter& parameter, const at::Tensor& stored) {
  if (BlockHooks* hooks = model.block_hooks(); hooks && hooks->holds(parameter)) {
    hooks->store(parameter, stored);
  } else if (parameter.master.is_same(parameter.value)) {
    parameter.value.copy_(stored.to(parameter.dtype));
  } else {
    parameter.master.copy_(stored);
    refresh_value(parameter);
  }
}

bool has_row_per_token(const std::string& name, const ModelConfig& config) {
  return name == kHead || name == std::string(names_of(config).embedding) + ".weight";
}

// Rows for tokens that were added: the mean of the others, which says nothing about any of them.
at::Tensor with_added_rows(const at::Tensor& stored, const std::string& name,
                           const ModelConfig& config) {
  if (config.added_rows == 0 || !has_row_per_token(name, config)) return stored;
  const at::Tensor mean = stored.mean({0}, /*keepdim=*/true, at::kDouble).to(stored.scalar_type());
  return at::cat({stored, mean.expand({config.added_rows, stored.size(1)})}, 0);
}

}  // namespace

bool has_own_master(const ModelOptions& options) {
  return options.compute != at::kFloat || options.weights != at::kFloat;
}

void make_trainable(Parameter& parameter, const ModelOptions& options) {
  if (parameter.master.is_same(parameter.value) && has_own_master(options)) {
    parameter.master = parameter.value.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  }
  parameter.value.requires_grad_(true);
}

void load_weights(Model& model, const ModelOptions& options, const fs::path& directory) {
  const at::NoGradGuard off;
  std::vector<std::string> findings;
  const StoredWeights stored = open_stored(directory, model.config(), findings);
  const bool damaged = !findings.empty();  // then missing tensors are no news
  std::set<std::string> wanted;
  const FindTensor look_up = [&](const std::string& name) {
    return find_stored(stored, directory, name);
  };
  const std::string kind = options.quantize ? name_of(*options.quantize) : "none";
  const std::string stored_kind = kind_of(stored);
  if (stored_kind != "none" && stored_kind != kind) {
    throw UserError(directory.string() + ": its weights are stored in " + stored_kind +
                    ", not as model.quantize = \"" + kind + "\" wants them: set model.quantize = \"" +
                    stored_kind + "\", or use the original model");
  }
  const bool half = options.compute == at::kHalf || options.weights == at::kHalf;
  // The stored tensor, still in its file, or nothing and a finding. `shape`: the model's.
  const auto find = [&](const std::string& name, std::vector<int64_t> shape) -> at::Tensor {
    wanted.insert(name);
    const auto found = stored.places.find(name);
    if (found == stored.places.end()) {
      if (!damaged)
        findings.push_back(directory.string() + ": '" + name + "' is missing from the weights");
      return {};
    }
    const auto& [file_name, own_name] = found->second;
    const std::string where = (directory / file_name).string() + ": '" + own_name + "'";
    const SafetensorsFile& file = stored.files.at(file_name);
    if (is_stored_transposed(name, model.config())) std::swap(shape[0], shape[1]);
    if (file.shape(own_name) != shape) {
      findings.push_back(where + " is " + shape_text(file.shape(own_name)) +
                         " but config.json wants " + shape_text(shape) +
                         ": the two come from different revisions?");
      return {};
    }
    if (!at::isFloatingType(file.dtype(own_name))) {
      findings.push_back(where + " is " + c10::toString(file.dtype(own_name)) +
                         ": quantised weights, which model.quantize must name (nf4, fp4 or int8)");
      return {};
    }
    const at::Tensor tensor = file.tensor(own_name);
    if (!is_finite(tensor)) {
      findings.push_back(where + " holds NaN or infinite values");
      return {};
    }
    if (half && !fits_float16(tensor)) {
      findings.push_back(where + " has values above 65504, which fp16 cannot hold: use bf16 or fp32");
      return {};
    }
    return in_stored_order(tensor, name, model.config()).contiguous();
  };
  for (Parameter& parameter : model.parameters()) {
    if (parameter.name == kScore && model.config().new_head) continue;
    std::vector<int64_t> shape = parameter.value.sizes().vec();
    if (has_row_per_token(parameter.name, model.config())) shape[0] -= model.config().added_rows;
    const at::Tensor tensor = find(parameter.name, shape);
    if (tensor.defined()) store(model, parameter, with_added_rows(tensor, parameter.name, model.config()));
  }
  for (const LinearSlot& slot : model.linears()) {
    if (slot.projection->quantized.empty()) continue;
    const std::string name = slot.module + ".weight";
    if (const std::string entry = kept_in_full(model.config().json, slot.module); !entry.empty()) {
      // Nothing else of these files matters.
      throw UserError((directory / "config.json").string() +
                      ": quantization_config.llm_int8_skip_modules: \"" + entry + "\" keeps " +
                      slot.module +
                      " in full precision, and Temper quantises every linear layer of the blocks: "
                      "use the original model");
    }
    QuantizedMatrix matrix = read_quantized(look_up, name);
    if (!matrix.defined()) {
      const at::Tensor tensor = find(name, {slot.out_features, slot.in_features});
      if (tensor.defined()) store_quantized(slot, tensor, options);
      continue;
    }
    wanted.insert(name);
    for (const std::string& companion : quantized_companions(name)) wanted.insert(companion);
    if (matrix.kind != *options.quantize || matrix.rows != slot.out_features ||
        matrix.columns != slot.in_features) {
      findings.push_back(look_up(name).file + ": '" + name +
                         "' is stored in another quantisation or shape than model.quantize and "
                         "config.json say");
      continue;
    }
    slot.projection->quantized[slot.part] = on_device(std::move(matrix), options.device);
  }
  for (const auto& [name, place] : stored.places) {
    // Of the embedding, or given up for a classification head.
    const bool unused_head = name == kHead &&
                             (model.config().tie_word_embeddings || model.config().num_labels > 0);
    if (wanted.contains(name) || unused_head || is_known_buffer(name)) continue;
    findings.push_back((directory / place.file).string() + ": '" + place.name + "' is not part of a " +
                       model.config().architecture + " with this config.json");
  }
  if (!findings.empty()) throw UserError(findings);
}

at::Tensor stored_tensor(const fs::path& directory, const std::string& name,
                         const ModelConfig& config) {
  std::vector<std::string> findings;
  const StoredWeights stored = open_stored(directory, config, findings);
  if (!findings.empty()) throw UserError(findings);
  const auto look_up = [&](const std::string& wanted) { return find_stored(stored, directory, wanted); };
  const StoredTensor found = look_up(name);
  if (!found.tensor.defined()) {
    throw UserError(directory.string() + ": '" + name + "' is missing from the weights");
  }
  const QuantizedMatrix matrix = read_quantized(look_up, name);
  if (!matrix.defined()) {
    return with_added_rows(in_stored_order(found.tensor, name, config), name, config);
  }
  return dequantize(matrix, matrix.kind == QuantKind::kInt8 ? at::kFloat : matrix.stored);
}

namespace {

// GPT-2's: what the blocks add to the residual stream starts smaller, for there are two of them in
// each block.
double deviation_of(const std::string& name, const ModelConfig& config) {
  const DecoderNames& names = names_of(config);
  const bool to_residual = name.ends_with(std::string(names.attention_output) + ".weight") ||
                           name.ends_with(std::string(names.mlp_output) + ".weight");
  if (!config.small_residual_start || !to_residual) return config.initializer_range;
  return config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers));
}

at::Tensor draw_normal(const Model& model, int64_t seed, const std::string& name,
                       at::IntArrayRef shape) {
  const auto generator = at::detail::createCPUGenerator(parallel::seed_of(seed, "weights/" + name));
  return at::empty(shape, at::kFloat).normal_(0.0, deviation_of(name, model.config()), generator);
}

void draw(Model& model, int64_t seed, Parameter& parameter) {
  const at::IntArrayRef shape = parameter.value.sizes();
  if (parameter.name.ends_with(".bias")) {
    store(model, parameter, at::zeros(shape, at::kFloat));
  } else if (is_norm(parameter.name.substr(0, parameter.name.rfind('.')), model.config())) {
    store(model, parameter, at::ones(shape, at::kFloat));
  } else {
    store(model, parameter, draw_normal(model, seed, parameter.name, shape));
  }
}

}  // namespace

void draw_head(Model& model, int64_t seed) {
  const at::NoGradGuard off;
  for (Parameter& parameter : model.parameters()) {
    if (parameter.name == kScore && model.config().new_head) draw(model, seed, parameter);
  }
}

void draw_value_head(Model& model, int64_t seed) {
  const at::NoGradGuard off;
  for (Parameter& parameter : model.parameters()) {
    if (of_value_head(parameter)) draw(model, seed, parameter);
  }
}

void draw_weights(Model& model, const ModelOptions& options, int64_t seed) {
  const at::NoGradGuard off;
  for (Parameter& parameter : model.parameters()) draw(model, seed, parameter);
  for (const LinearSlot& slot : model.linears()) {
    if (slot.projection->quantized.empty()) continue;
    const std::string name = slot.module + ".weight";
    store_quantized(
        slot, draw_normal(model, seed, name, {slot.out_features, slot.in_features}), options);
  }
}

void refresh_values(Model& model) {
  const at::NoGradGuard off;
  for (Parameter& parameter : model.parameters()) refresh_value(parameter);
}

double training_flops_per_token(const ModelConfig& config, double mean_attended_length,
                                bool frozen) {
  const double d = static_cast<double>(config.hidden_size);
  const double queries = static_cast<double>(config.num_attention_heads * config.head_dim);
  const double keys = static_cast<double>(config.num_key_value_heads * config.head_dim);
  const double layers = static_cast<double>(config.num_hidden_layers);
  const int64_t outputs = config.num_labels > 0 ? config.num_labels : config.vocab_size;
  const int64_t mlp = config.gelu ? 2 : 3;
  const double weights = layers * (d * (2 * queries + 2 * keys) +
                                   d * static_cast<double>(mlp * config.intermediate_size)) +
                         d * static_cast<double>(outputs);
  return (frozen ? 4 : 6) * weights + 12 * layers * queries * mean_attended_length;
}

}  // namespace temper::trainer
