#include "trainer/memory_plan.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace temper::trainer {

namespace {

int64_t bytes_of(recipes::Dtype dtype) { return dtype == recipes::Dtype::kFp32 ? 4 : 2; }

// Bytes of states a parameter. In 8 bits: a code and a block's share of its scale, for two moments.
double state_bytes(const recipes::Optimizer& optimizer) {
  if (optimizer.kind == "adamw") return 8;
  if (optimizer.kind.ends_with("adamw_8bit")) return 2 * (1 + 4.0 / 256);
  return optimizer.momentum > 0 ? 4 : 0;
}

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

MemoryPlan plan_memory(const recipes::Recipe& recipe, const ModelConfig& config, int64_t ranks) {
  MemoryPlan plan;
  plan.parameters = parameter_count(config);
  const int64_t compute = bytes_of(recipe.train.precision);
  const bool masters = recipe.train.precision != recipes::Dtype::kFp32 || recipe.model.dtype != recipes::Dtype::kFp32;
  plan.weights = plan.parameters * (compute + (masters ? 4 : 0));
  plan.gradients = plan.parameters * 4;
  plan.optimizer = static_cast<int64_t>(static_cast<double>(plan.parameters) * state_bytes(recipe.optimizer));

  const int64_t tokens = recipe.batch.micro * recipe.data.max_length;
  const auto mode = recipe.train.activation_checkpointing;
  int64_t elements = config.num_hidden_layers * saved_elements(config, mode);
  // A checkpointed block is whole again while its backward runs.
  if (mode != recipes::ActivationCheckpointing::kNone) elements += saved_elements(config, recipes::ActivationCheckpointing::kNone);
  elements += 3 * config.hidden_size;  // embedding, final norm, its gradient
  plan.activations = tokens * elements * compute;

  plan.checkpoint_bytes = plan.parameters * 4 + plan.optimizer;
  const int64_t snapshot = recipe.checkpoint.async ? plan.checkpoint_bytes / std::max<int64_t>(1, ranks) : 0;
  const int64_t logits = std::min(kHeadChunkTokens, tokens) * config.vocab_size * compute;
  plan.buffers = kProgram + logits + snapshot;
  plan.export_bytes = plan.parameters * (recipe.export_.dtype == "fp32" || recipe.model.dtype == recipes::Dtype::kFp32 ? 4 : 2);
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
