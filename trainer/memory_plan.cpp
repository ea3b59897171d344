#include "trainer/memory_plan.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "parallel/replicate/bucket_plan.h"
#include "parallel/replicate/tree_sum.h"
#include "parallel/shard/gather.h"
#include "recipes/diagnostic.h"
#include "recipes/objective_kinds.h"
#include "recipes/peft_methods.h"
#include "trainer/adapters/adapters.h"
#include "trainer/generation/engine.h"
#include "trainer/models/rope_frequencies.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/ops/blockwise.h"
#include "trainer/ops/head_products.h"
#include "trainer/ops/paged_attention.h"
#include "trainer/rollouts/plan.h"
#include "trainer/run.h"

namespace temper::trainer {

namespace {

int64_t bytes_of(recipes::Dtype dtype) { return dtype == recipes::Dtype::kFp32 ? 4 : 2; }

// Projections that read an MLP's input: a gate and what it scales, or one.
int64_t mlp_inputs(const ModelConfig& c) { return c.gelu ? 1 : 2; }

// What the ops keep for backward, in elements a token and layer. The block's fused nodes save their inputs once: see ops/.
int64_t saved_elements(const ModelConfig& c, recipes::ActivationCheckpointing mode) {
  const int64_t heads = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const int64_t attention = 2 * c.hidden_size /* residual, normed */ + 2 * heads + 2 * kv + (c.qk_norm ? heads + kv : 0);
  const int64_t inner = mlp_inputs(c) * c.intermediate_size;
  const int64_t mlp = 2 * c.hidden_size + inner + c.intermediate_size;
  switch (mode) {
    case recipes::ActivationCheckpointing::kNone:
      return attention + mlp;
    case recipes::ActivationCheckpointing::kSelective:  // norms and the activation are computed again
      return attention + inner;
    case recipes::ActivationCheckpointing::kFull:
      return c.hidden_size;
  }
  return 0;
}

constexpr int64_t kProgram = int64_t{176} << 20;  // libraries, their tables and MPI's, resident after a step

}  // namespace

int64_t parameter_count(const ModelConfig& c) {
  const int64_t d = c.hidden_size, heads = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const int64_t norm = c.layer_norm ? 2 * d : d, inner = mlp_inputs(c) * c.intermediate_size;
  int64_t layer = d * (heads + 2 * kv) + heads * d + d * (inner + c.intermediate_size) + 2 * norm;
  if (c.attention_bias) layer += heads + 2 * kv;
  if (c.output_bias) layer += d;
  if (c.mlp_bias) layer += inner + d;
  if (c.qk_norm) layer += 2 * c.head_dim;
  const int64_t head = c.num_labels > 0 ? c.num_labels : c.tie_word_embeddings ? 0 : c.vocab_size;
  const int64_t positions = c.learned_positions ? c.max_position_embeddings : 0;
  return c.num_hidden_layers * layer + (c.vocab_size + positions + head) * d + norm;
}

namespace {

int64_t quantized_bytes(const LinearSlot& slot, QuantKind kind, bool double_quant) {
  const int64_t elements = slot.in_features * slot.out_features;
  if (kind == QuantKind::kInt8) return elements + 4 * slot.out_features;
  const int64_t blocks = (elements + kBlock4 - 1) / kBlock4;
  const int64_t nested = (blocks + kBlock8 - 1) / kBlock8;
  return (elements + 1) / 2 + (double_quant ? blocks + 4 * nested : 4 * blocks);
}

// Counted from the model itself, made on the meta device: shapes without memory.
struct Tensors {
  int64_t weights = 0;    // bytes: values, masters that are tensors of their own, quantised matrices
  int64_t masters = 0;    // of these bytes
  std::map<int64_t, int64_t> blocks{};  // of these bytes: what ZeRO 3 shares out of each block
  int64_t trainable = 0;  // elements
  std::vector<int64_t> trained{};  // elements of each such parameter
  std::vector<int64_t> units{};    // what none of them shares a bucket across
  int64_t largest = 0;    // elements of the largest quantised projection, whole for one product at a time
  std::vector<std::pair<int64_t, int64_t>> float8{};  // rows and columns of the linear layers that compute in it
  int64_t inner = 0;      // columns of the widest x A^T of LoRA
  int64_t start = 0;      // bytes of what a start that changes the base keeps
  int64_t ranks = 0;      // bytes of what AdaLoRA's allocator keeps
  int64_t adapter = 0;    // bytes of an exported adapter
  int64_t virtual_tokens = 0;  // of a document
  int64_t value_head = 0;      // elements, float32
};

// Of the base's own weights, which an adapter's export takes along as they are stored.
int64_t stored_bytes(const ModelConfig& config) { return config.stored_dtype == "float32" ? 4 : 2; }

void count_adapters(Adapters& adapters, Tensors& tensors) {
  const recipes::Peft& peft = adapters.peft();
  const auto element = static_cast<int64_t>(at::elementSize(adapter_dtype(peft)));
  if (is_prompt_learning(peft.method)) {  // at most: what an encoder makes is smaller than the encoder
    tensors.adapter = tensors.trainable * element;
    return;
  }
  // A start that takes a part out of the base is exported as a LoRA of twice the rank.
  const int64_t times = changes_base(peft) && !starts_quantised(peft) ? 2 : 1;
  int64_t bytes = 0;  // float32
  for (const auto& [key, tensor] : adapters.tensors()) {
    tensors.adapter += times * tensor.numel() * element;
    bytes += 4 * tensor.numel();
  }
  if (changes_base(peft)) tensors.start = bytes;
  // Smoothed importance and its uncertainty.
  if (adapters.allocator()) tensors.ranks = 2 * bytes;
}

Tensors count_tensors(const recipes::Recipe& recipe, const ModelConfig& config) {
  ModelOptions options = model_options(recipe);
  options.device = at::kMeta;
  const auto model = build_model(config, options);
  std::optional<Adapters> adapters;
  if (options.frozen) {
    adapters.emplace(recipe.model.adapter.empty() ? recipe.peft : peft_of_directory(recipe.model.adapter), *model, options);
  } else {
    choose_trainable(*model, recipe.train);
  }
  Tensors tensors;
  for (const Parameter& parameter : model->parameters()) {
    tensors.weights += static_cast<int64_t>(parameter.value.nbytes());
    if (!parameter.master.is_same(parameter.value)) tensors.masters += static_cast<int64_t>(parameter.master.nbytes());
    if (parameter.trainable()) tensors.trained.push_back(parameter.value.numel());
    if (!adapters) continue;
    for (const auto& [key, name] : adapters->saved_base()) {
      if (parameter.name == name) tensors.adapter += parameter.value.numel() * stored_bytes(config);
    }
  }
  std::vector<Parameter> trained;
  std::ranges::copy_if(model->parameters(), std::back_inserter(trained), &Parameter::trainable);
  tensors.units = bucket_units(recipe, trained);
  tensors.weights += tensors.masters;
  for (const Parameter* parameter : held_parameters(*model, adapters.has_value())) {
    tensors.blocks[parameter->block] += static_cast<int64_t>(parameter->value.nbytes());
  }
  tensors.trainable = std::accumulate(tensors.trained.begin(), tensors.trained.end(), int64_t{0});
  if (adapters) count_adapters(*adapters, tensors);
  if (build_objective(recipe.objective)->needs_value_head()) {
    tensors.value_head = config.hidden_size + 1;
    tensors.weights += 4 * tensors.value_head;
    tensors.trainable += tensors.value_head;
    tensors.trained.push_back(tensors.value_head);
    if (!tensors.units.empty()) tensors.units.push_back(-1);
  }
  if (model->virtual_tokens()) tensors.virtual_tokens = model->virtual_tokens()->count;
  std::map<const Projection*, int64_t> whole;
  for (const LinearSlot& slot : model->linears()) {
    if (slot.projection->float8 && takes_float8(slot.out_features, slot.in_features)) {
      tensors.float8.emplace_back(slot.out_features, slot.in_features);
    }
    if (slot.projection->low_rank) tensors.inner = std::max(tensors.inner, slot.projection->low_rank->a.size(0));
    if (slot.projection->quantized.empty()) continue;
    const int64_t bytes = quantized_bytes(slot, *options.quantize, options.double_quant);
    tensors.weights += bytes;
    tensors.blocks[slot.block] += bytes;
    int64_t& elements = whole[slot.projection];
    elements += slot.in_features * slot.out_features;
    tensors.largest = std::max(tensors.largest, elements);
  }
  return tensors;
}

}  // namespace

namespace {

// Documents of a row: pairs stand side by side, whatever they share.
int64_t documents_of_row(const std::string& kind) {
  return kind == "dpo" || kind == "orpo" || kind == "cpo" || kind == "reward" ? 2 : 1;
}

bool samples_completions(const recipes::Recipe& recipe) {
  return recipes::samples_completions(recipe.objective) ||
         dynamic_cast<const RolloutObjective*>(build_objective(recipe.objective).get()) != nullptr;
}

int64_t longest_completion(const recipes::Recipe& recipe) { return recipe.objective.max_completion_length.value_or(512); }

// Prompts that so many completions side by side can belong to, wherever they begin.
int64_t prompts_of(int64_t completions, int64_t group) { return (completions + group - 2) / group + 1; }

// Of one micro-batch.
int64_t tokens_of(const recipes::Recipe& recipe, const ModelConfig& config, int64_t virtual_tokens) {
  const int64_t row = recipe.data.max_length + virtual_tokens;
  if (!samples_completions(recipe)) return recipe.batch.micro * documents_of_row(recipe.objective.kind) * row;
  const int64_t group = depends_on_length(config.rope) ? 1 : recipes::completions_of_prompt(recipe.objective);
  const int64_t micro = recipe.batch.micro * recipes::completions_of_row(recipe.objective);
  const int64_t prompts = micro % group == 0 ? micro / group : prompts_of(micro, group);
  return prompts * row + micro * longest_completion(recipe);
}

bool on_gpu(const recipes::Recipe& recipe) { return recipe.train.device == recipes::Device::kCuda; }

// Of the engine, that have a sequence at once.
int64_t slots_in_use(const recipes::Recipe& recipe, int64_t ranks) {
  const recipes::Objective& objective = recipe.objective;
  const int64_t rows = objective.steps_per_generation ? *objective.steps_per_generation * recipe.batch.micro : recipe.batch.global / ranks;
  const int64_t own = rows * recipes::completions_of_row(objective);
  const int64_t all = EngineOptions{}.slots;
  return recipe.data.eval.empty() ? std::min(all, own) : all;
}

// Every slot in the middle of its longest completion; the page that a prompt ends in is each sample's own.
int64_t cache_bytes(const recipes::Recipe& recipe, const ModelConfig& config, int64_t slots, int64_t virtual_tokens) {
  const auto pages = [](int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; };
  const PageShape shape{.layers = config.num_hidden_layers,
                        .kv_heads = config.num_key_value_heads,
                        .head_dim = config.head_dim,
                        .dtype = model_options(recipe).compute};
  return shape.bytes() * (prompts_of(slots, recipes::completions_of_prompt(recipe.objective)) * pages(recipe.data.max_length + virtual_tokens) +
                          slots * (pages(longest_completion(recipe)) + 1));
}

// Weights packed for decoding (KeptWeights): all but the embedding; quantised ones are not. Float16 is packed as float32.
int64_t packed_bytes(const recipes::Recipe& recipe, const ModelConfig& config) {
  const int64_t head = config.vocab_size * config.hidden_size;
  const int64_t products = parameter_count(config) - (config.tie_word_embeddings ? 0 : head);
  return (recipe.model.quantize == "none" ? products : head) * (recipe.train.precision == recipes::Dtype::kBf16 ? 2 : 4);
}

// While completions are sampled. On the CPU weights are packed; a GPU's recorded steps (DecodeGraphs) have logits of their own, and
// a place of their own for `dequantised` bytes.
int64_t rollout_bytes(const recipes::Recipe& recipe, const ModelConfig& config, int64_t ranks, int64_t virtual_tokens,
                      int64_t dequantised) {
  if (!samples_completions(recipe)) return 0;
  const int64_t slots = slots_in_use(recipe, ranks);
  return cache_bytes(recipe, config, slots, virtual_tokens) +
         (on_gpu(recipe) ? slots * config.vocab_size * 4 + dequantised : packed_bytes(recipe, config));
}

int64_t reward_bytes(const recipes::Objective& objective) {
  int64_t bytes = 0;
  for (const recipes::Reward& reward : objective.rewards) {
    if (reward.kind == "model") bytes += 4 * parameter_count(load_config(reward.path.value_or("")));
  }
  return bytes;
}

// A reference model of its own: not where adapters are switched off or log-probabilities are stored.
int64_t reference_bytes(const recipes::Recipe& recipe, int64_t parameters, bool adapters) {
  const recipes::Objective& objective = recipe.objective;
  if (objective.teacher) {
    return parameter_count(load_config(*objective.teacher)) * bytes_of(recipe.train.precision);
  }
  if (!build_objective(objective)->needs_reference()) return 0;
  const bool given = !objective.ref_model.value_or("").empty();
  const bool stored = objective.precompute_ref_log_probs.value_or(false);
  if (!given && (adapters || stored)) return 0;
  const int64_t compute = bytes_of(recipe.train.precision);
  const bool masters = objective.sync_ref_model.value_or(false) && (compute != 4 || recipe.model.dtype != recipes::Dtype::kFp32);
  return parameters * (compute + (masters ? 4 : 0));
}

}  // namespace

namespace {

// Where only segments are kept: two buckets are on their way, each with the sums that come back, while a third is filled from the
// gradient that backward has just made.
int64_t bytes_under_way(const recipes::Parallel& layout, const Tensors& tensors) {
  const std::vector<int64_t>& sizes = tensors.trained;
  const parallel::BucketPlan plan = parallel::plan_buckets(sizes, (layout.bucket_mib << 20) / 4, layout.shard, tensors.units);
  std::vector<int64_t> largest(plan.bucket_sizes.size());
  for (size_t i = 0; i < sizes.size(); ++i) largest[plan.slots[i].bucket] = std::max(largest[plan.slots[i].bucket], sizes[i]);
  int64_t most = 0;
  for (size_t i = 0; i < largest.size(); ++i) {
    int64_t elements = largest[i];
    for (size_t bucket = i < 2 ? 0 : i - 2; bucket <= i; ++bucket) {
      elements += plan.bucket_sizes[bucket] + (bucket < i ? plan.bucket_sizes[bucket] / layout.shard : 0);
    }
    most = std::max(most, elements);
  }
  return 4 * most;
}

// What collectives copy, and threads' heaps keep: an all-reduce goes by pieces of 4 MiB (parallel/mpi_communicator.cpp), of which
// MPI has a copy. A reduce-scatter has three pieces gathered together, and MPI two more in each of the two heaps of both threads that
// begin one; the gathering of values, which follows, is smaller. On a GPU that is what there is: two buffers, and what a rank brings.
int64_t exchange_bytes(const recipes::Recipe& recipe, int64_t ranks) {
  constexpr int64_t kPiece = int64_t{4} << 20;
  const int64_t shards = recipe.parallel.shard;
  if (ranks == 1) return 0;
  if (on_gpu(recipe)) return shards > 1 ? 2 * (4 * parallel::kGatheredOnDevice) * (1 + shards) / shards : 0;
  return (shards > 1 ? 3 + 2 * 2 * 2 : 2) * kPiece;
}

// Sums in the order of a tree put some aside, and keep all ranks' parts until they are added up.
int64_t gradient_bytes(const recipes::Recipe& recipe, const Tensors& tensors, int64_t ranks) {
  const int64_t shards = recipe.parallel.shard, all = 4 * tensors.trainable;
  const auto exact = exact_micro_batches(recipe, ranks);
  const int64_t aside = exact ? parallel::TreeSum::levels(*exact) : 0;
  const auto parts = [&](int64_t bytes, int64_t group) { return exact && group > 2 ? 2 * bytes : 0; };
  if (shards == 1) return all * (1 + aside) + parts(all, ranks);
  const int64_t segments = all / shards;
  if (recipes::zero_stage(recipe.parallel) >= 2 && !exact) return segments + bytes_under_way(recipe.parallel, tensors);
  return segments + all * (1 + aside) + std::max(parts(all, shards) / 2, parts(segments, ranks / shards));
}

// What ZeRO 3 takes off the weights of one copy. A block is whole while the next one is gathered; all are while completions are
// sampled, and from forward on where they are not given up after it.
int64_t given_up(const recipes::Recipe& recipe, const Tensors& tensors) {
  int64_t all = 0, largest = 0;
  for (const auto& [block, bytes] : tensors.blocks) {
    all += bytes;
    largest = std::max(largest, bytes);
  }
  const bool whole = samples_completions(recipe) || !recipe.parallel.reshard;
  return all - all / recipe.parallel.shard - (whole ? all : std::min(all, 2 * largest));
}

// Of the largest product: codes, their copies in bfloat16, and the sums in float32 before they are rounded.
int64_t float8_bytes(const Tensors& tensors, int64_t tokens, int64_t compute) {
  int64_t most = 0;
  for (const auto& [rows, columns] : tensors.float8) {
    const auto product = [](int64_t m, int64_t n, int64_t k, int64_t rounded) {
      return 3 * (m + n) * k + (4 + rounded) * m * n;
    };
    const int64_t rounded = compute == 4 ? 0 : compute;
    most = std::max({most, product(tokens, rows, columns, rounded), product(tokens, columns, rows, rounded),
                     product(rows, columns, tokens, 0)});
  }
  return most;
}

}  // namespace

MemoryPlan plan_memory(const recipes::Recipe& recipe, const ModelConfig& config, int64_t ranks) {
  MemoryPlan plan;
  plan.parameters = parameter_count(config);
  const int64_t compute = bytes_of(recipe.train.precision);
  const Tensors tensors = count_tensors(recipe, config);
  plan.trainable = tensors.trainable;
  const bool adapters = !recipe.peft.method.empty() || !recipe.model.adapter.empty();
  const int64_t shards = recipe.parallel.shard;
  plan.weights = tensors.weights + tensors.start + reference_bytes(recipe, plan.parameters, adapters);
  // Each rank has the masters of its own pieces; those of adapters stay beside them.
  if (shards > 1) plan.weights += tensors.masters / shards - (adapters ? 0 : tensors.masters);
  if (recipes::zero_stage(recipe.parallel) == 3) plan.weights -= given_up(recipe, tensors);
  plan.gradients = gradient_bytes(recipe, tensors, ranks);
  const int64_t states = recipe.optimizer.kind.find("adamw") != std::string::npos ? 2 : (recipe.optimizer.momentum > 0 ? 1 : 0);
  const int64_t state_bytes = recipe.optimizer.kind.ends_with("adamw_8bit") ? 1 : 4;
  const int64_t all_states = plan.trainable * state_bytes * states;
  plan.optimizer = all_states / shards + tensors.ranks;
  if (recipe.parallel.offload == recipes::Offload::kOptimizer && on_gpu(recipe)) {
    plan.offloaded = all_states / shards + (adapters ? 0 : tensors.masters / shards);
  }

  // With packing, rows hold more documents than one, as many as the data has it.
  const int64_t tokens = tokens_of(recipe, config, tensors.virtual_tokens);
  const auto mode = recipe.train.activation_checkpointing;
  int64_t elements = config.num_hidden_layers * (saved_elements(config, mode) + 4 * tensors.inner);
  // A checkpointed block is whole again while its backward runs.
  if (mode != recipes::ActivationCheckpointing::kNone) elements += saved_elements(config, recipes::ActivationCheckpointing::kNone);
  elements += 3 * config.hidden_size;  // embedding, final norm, its gradient
  elements += (mlp_inputs(config) + 1) * config.intermediate_size;  // gradients of the MLP whose backward runs
  plan.activations = tokens * elements * compute;
  // Those of a recorded pass stay its own; between ranks the last pass of a step is none.
  if (recipe.train.cuda_graphs && ranks > 1) plan.activations *= 2;
  plan.rewards = reward_bytes(recipe.objective);
  plan.rollouts = rollout_bytes(recipe, config, ranks, tensors.virtual_tokens, tensors.largest * compute);
  if (recipe.objective.seq_kd.value_or(false)) {  // the teacher's turn comes after the student's
    const ModelConfig teacher = load_config(*recipe.objective.teacher);
    plan.rollouts = std::max(plan.rollouts, rollout_bytes(recipe, teacher, ranks, 0, 0));
  }

  const int64_t stored = adapters ? plan.trainable : plan.parameters + tensors.value_head;
  plan.checkpoint_bytes = stored * 4 + tensors.start + all_states + tensors.ranks;
  const int64_t snapshot = recipe.checkpoint.async ? plan.checkpoint_bytes / std::max<int64_t>(1, ranks) : 0;
  if (on_gpu(recipe)) plan.offloaded += snapshot;
  // Float32 logits, of a teacher too; their gradient takes their place in float32 and stands beside
  // them in sixteen bits.
  const int64_t outputs = config.num_labels > 0 ? config.num_labels : config.vocab_size;
  const int64_t models = recipe.objective.teacher ? 2 : 1;
  const HeadChunk chunk = head_chunk({.count = tokens, .vocabulary = outputs, .models = models}, on_gpu(recipe), compute);
  const int64_t logits = outputs * (4 * chunk.logits * (compute == 4 ? models - 1 : models) + compute * chunk.rows);
  // Of float16 products on the CPU, the left operand in float32: SwiGLU's gradient, or that of logits.
  const int64_t widened =
      recipe.train.precision == recipes::Dtype::kFp16 && !on_gpu(recipe) ? 4 * std::max(tokens * 2 * config.intermediate_size, chunk.rows * outputs) : 0;
  plan.buffers = kProgram + exchange_bytes(recipe, ranks) + logits + widened + snapshot + tensors.largest * compute +
                 float8_bytes(tensors, tokens, compute);
  const bool merged = !adapters || recipe.export_.merge;
  const bool full = recipe.export_.dtype == "fp32" || recipe.model.dtype == recipes::Dtype::kFp32;
  plan.export_bytes = merged ? plan.parameters * (full ? 4 : 2) : tensors.adapter;
  return plan;
}

namespace {

// A change that saves memory, the harmless ones first.
struct Knob {
  std::string key;  // as it is written in a recipe
  std::function<void(recipes::Recipe&)> turn;
};

std::vector<Knob> knobs(const recipes::Recipe& recipe, int64_t ranks) {
  std::vector<Knob> knobs = {
      {"checkpoint.async = false", [](recipes::Recipe& r) { r.checkpoint.async = false; }},
      {"batch.micro = 1", [](recipes::Recipe& r) { r.batch.micro = 1; }},
      {"train.activation_checkpointing = \"full\"",
       [](recipes::Recipe& r) { r.train.activation_checkpointing = recipes::ActivationCheckpointing::kFull; }}};
  if (ranks > 1 && recipe.parallel.shard == 1 && recipe.peft.method != "adalora") {
    for (const int64_t zero : {3, 2}) {
      if (zero == 3 && changes_base(recipe.peft)) continue;
      knobs.insert(knobs.begin() + 1, {"parallel.shard = " + std::to_string(ranks) + ", parallel.zero = " + std::to_string(zero),
                                       [ranks, zero](recipes::Recipe& r) {
                                         r.parallel.replicate = 1;
                                         r.parallel.shard = ranks;
                                         r.parallel.zero = zero;
                                       }});
    }
  }
  if (on_gpu(recipe)) {
    knobs.push_back({"parallel.offload = \"optimizer\"", [](recipes::Recipe& r) { r.parallel.offload = recipes::Offload::kOptimizer; }});
  }
  if (recipe.optimizer.kind == "adamw") {
    knobs.push_back({"optimizer.kind = \"adamw_8bit\"", [](recipes::Recipe& r) { r.optimizer.kind = "adamw_8bit"; }});
  }
  const bool adapters = !recipe.peft.method.empty() || !recipe.model.adapter.empty();
  if (adapters && recipe.model.quantize == "none" && !changes_base(recipe.peft)) {
    knobs.push_back({"model.quantize = \"nf4\"", [](recipes::Recipe& r) { r.model.quantize = "nf4"; }});
  }
  const int64_t half = recipe.data.max_length / 2;
  knobs.push_back({"data.max_length = " + std::to_string(half), [half](recipes::Recipe& r) { r.data.max_length = half; }});
  return knobs;
}

}  // namespace

std::string memory_advice(const recipes::Recipe& recipe, const ModelConfig& config, int64_t ranks, int64_t limit) {
  const auto total = [&](const recipes::Recipe& r) { return plan_memory(r, config, ranks).on_device(); };
  const auto mib = [](int64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; };
  for (const Knob& knob : knobs(recipe, ranks)) {
    recipes::Recipe changed = recipe;
    knob.turn(changed);
    if (total(changed) <= limit) return knob.key + " makes it fit (" + mib(total(changed)) + ")";
  }
  // All of them, then without each that is not needed.
  std::vector<Knob> turned = knobs(recipe, ranks);
  const auto with = [&](const std::vector<Knob>& some) {
    recipes::Recipe changed = recipe;
    for (const Knob& knob : some) knob.turn(changed);
    return total(changed);
  };
  const int64_t least = with(turned);
  if (least > limit) {
    const bool full = recipe.peft.method.empty() && recipe.model.adapter.empty();
    return "no key makes it fit, all together take it to " + mib(least) +
           (full ? ": train adapters ([peft]) or a smaller model" : ": take a smaller model");
  }
  for (size_t i = turned.size(); i-- > 0;) {
    std::vector<Knob> fewer = turned;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    if (with(fewer) <= limit) turned = std::move(fewer);
  }
  std::vector<std::string> keys;
  for (const Knob& knob : turned) keys.push_back(knob.key);
  return join(keys, " and ") + " together make it fit (" + mib(with(turned)) + ")";
}

}  // namespace temper::trainer
