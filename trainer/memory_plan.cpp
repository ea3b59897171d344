#include "trainer/memory_plan.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/adapters.h"
#include "trainer/run.h"

namespace temper::trainer {

namespace {

int64_t bytes_of(recipes::Dtype dtype) { return dtype == recipes::Dtype::kFp32 ? 4 : 2; }

// What the ops keep for backward, in elements a token and layer. The block's fused nodes save their inputs once: see ops/.
int64_t saved_elements(const ModelConfig& c, recipes::ActivationCheckpointing mode) {
  const int64_t heads = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const int64_t attention = 2 * c.hidden_size /* residual, normed */ + 2 * heads + 2 * kv + (c.qk_norm ? heads + kv : 0);
  const int64_t mlp = 2 * c.hidden_size + 3 * c.intermediate_size;
  switch (mode) {
    case recipes::ActivationCheckpointing::kNone:
      return attention + mlp;
    case recipes::ActivationCheckpointing::kSelective:
      return attention + c.hidden_size;
    case recipes::ActivationCheckpointing::kFull:
      return c.hidden_size;
  }
  return 0;
}

constexpr int64_t kProgram = int64_t{240} << 20;   // libraries and their tables, resident after a step
constexpr int64_t kHeadChunkTokens = 1024;         // rows of logits that exist at once (ops/head_cross_entropy)

}  // namespace

int64_t parameter_count(const ModelConfig& c) {
  const int64_t d = c.hidden_size, heads = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  int64_t layer = d * (heads + 2 * kv) + heads * d + 3 * d * c.intermediate_size + 2 * d;
  if (c.attention_bias) layer += heads + 2 * kv;
  if (c.output_bias) layer += d;
  if (c.mlp_bias) layer += 2 * c.intermediate_size + d;
  if (c.qk_norm) layer += 2 * c.head_dim;
  return c.num_hidden_layers * layer + (c.tie_word_embeddings ? 1 : 2) * c.vocab_size * d + d;
}

namespace {

int64_t quantized_bytes(const LinearSlot& slot, QuantKind kind, bool double_quant) {
  const int64_t elements = slot.in_features * slot.out_features;
  if (kind == QuantKind::kInt8) return elements + 4 * slot.out_features;
  const int64_t blocks = (elements + 63) / 64;
  return (elements + 1) / 2 + (double_quant ? blocks + 4 * ((blocks + 255) / 256) : 4 * blocks);
}

// Counted from the model itself, made on the meta device: shapes without memory.
struct Tensors {
  int64_t weights = 0;    // bytes: values, masters that are tensors of their own, quantised matrices
  int64_t trainable = 0;  // elements
  int64_t largest = 0;    // elements of the largest quantised projection, whole for one product at a time
  int64_t inner = 0;      // columns of the widest x A^T of LoRA
  int64_t virtual_tokens = 0;  // of a document
};

Tensors count_tensors(const recipes::Recipe& recipe, const ModelConfig& config) {
  ModelOptions options = model_options(recipe);
  options.device = at::kMeta;
  const auto model = build_model(config, options);
  std::optional<Adapters> adapters;
  if (options.frozen) {
    adapters.emplace(recipe.model.adapter.empty() ? recipe.peft : without_encoder(read_adapter_config(recipe.model.adapter)),
                     *model, options);
  } else {
    choose_trainable(*model, recipe.train);
  }
  Tensors tensors;
  for (const Parameter& parameter : model->parameters()) {
    tensors.weights += static_cast<int64_t>(parameter.value.nbytes());
    if (!parameter.master.is_same(parameter.value)) tensors.weights += static_cast<int64_t>(parameter.master.nbytes());
    if (parameter.trainable()) tensors.trainable += parameter.value.numel();
  }
  if (model->virtual_tokens()) tensors.virtual_tokens = model->virtual_tokens()->count;
  std::map<const Projection*, int64_t> whole;
  for (const LinearSlot& slot : model->linears()) {
    if (slot.projection->low_rank) tensors.inner = std::max(tensors.inner, slot.projection->low_rank->a.size(0));
    if (slot.projection->quantized.empty()) continue;
    tensors.weights += quantized_bytes(slot, *options.quantize, options.double_quant);
    int64_t& elements = whole[slot.projection];
    elements += slot.in_features * slot.out_features;
    tensors.largest = std::max(tensors.largest, elements);
  }
  return tensors;
}

}  // namespace

MemoryPlan plan_memory(const recipes::Recipe& recipe, const ModelConfig& config, int64_t ranks) {
  MemoryPlan plan;
  plan.parameters = parameter_count(config);
  const int64_t compute = bytes_of(recipe.train.precision);
  const Tensors tensors = count_tensors(recipe, config);
  plan.trainable = tensors.trainable;
  plan.weights = tensors.weights;
  plan.gradients = plan.trainable * 4;
  const int64_t states = recipe.optimizer.kind.find("adamw") != std::string::npos ? 2 : (recipe.optimizer.momentum > 0 ? 1 : 0);
  const int64_t state_bytes = recipe.optimizer.kind.ends_with("adamw_8bit") ? 1 : 4;
  plan.optimizer = plan.trainable * state_bytes * states;

  // With packing, rows hold more documents than one, as many as the data has it.
  const int64_t tokens = recipe.batch.micro * (recipe.data.max_length + tensors.virtual_tokens);
  const auto mode = recipe.train.activation_checkpointing;
  int64_t elements = config.num_hidden_layers * (saved_elements(config, mode) + 4 * tensors.inner);
  // A checkpointed block is whole again while its backward runs.
  if (mode != recipes::ActivationCheckpointing::kNone) elements += saved_elements(config, recipes::ActivationCheckpointing::kNone);
  elements += 3 * config.hidden_size;  // embedding, final norm, its gradient
  plan.activations = tokens * elements * compute;

  const bool adapters = !recipe.peft.method.empty() || !recipe.model.adapter.empty();
  const int64_t stored = adapters ? plan.trainable : plan.parameters;
  plan.checkpoint_bytes = stored * 4 + plan.trainable * state_bytes * states;
  const int64_t snapshot = recipe.checkpoint.async ? plan.checkpoint_bytes / std::max<int64_t>(1, ranks) : 0;
  const int64_t logits = std::min(kHeadChunkTokens, tokens) * config.vocab_size * compute;
  plan.buffers = kProgram + logits + snapshot + tensors.largest * compute;
  plan.export_bytes = (adapters && !recipe.export_.merge ? plan.trainable : plan.parameters) * (recipe.export_.dtype == "fp32" || recipe.model.dtype == recipes::Dtype::kFp32 ? 4 : 2);
  return plan;
}

std::string memory_advice(const recipes::Recipe& recipe, const ModelConfig& config, int64_t ranks) {
  const int64_t now = plan_memory(recipe, config, ranks).total();
  std::vector<std::pair<int64_t, std::string>> savings;
  const auto try_change = [&](recipes::Recipe changed, const std::string& what) {
    savings.emplace_back(now - plan_memory(changed, config, ranks).total(), what);
  };
  recipes::Recipe changed = recipe;
  changed.train.activation_checkpointing = recipes::ActivationCheckpointing::kFull;
  try_change(changed, "train.activation_checkpointing = \"full\"");
  changed = recipe;
  changed.batch.micro = 1;
  try_change(changed, "batch.micro = 1");
  changed = recipe;
  changed.data.max_length = recipe.data.max_length / 2;
  try_change(changed, "data.max_length = " + std::to_string(changed.data.max_length));
  changed = recipe;
  changed.checkpoint.async = false;
  try_change(changed, "checkpoint.async = false");
  const auto best = std::max_element(savings.begin(), savings.end());
  return best->second + " saves most, " + std::to_string(best->first >> 20) + " MiB";
}

}  // namespace temper::trainer
