// A decoder of pre-norm blocks; what they are made of is said by fields of ModelConfig: Llama
// (Touvron et al. 2023, arXiv:2302.13971; Grattafiori et al. 2024, arXiv:2407.21783), Mistral,
// Qwen2, Qwen3 and GPT-2 (Radford et al. 2019). For each layer, with x the residual stream:
//
//     x = x + W_o attention(rope(norm_qk(W_qkv norm(x))))
//     x = x + W_down (silu(W_gate norm(x)) * W_up norm(x))     or  x + W_down gelu(W_up norm(x))
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/generation/kv_cache.h"
#include "trainer/models/decode_inputs.h"
#include "trainer/models/registry.h"
#include "trainer/models/rope_frequencies.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/checkpoint.h"
#include "trainer/ops/device.h"
#include "trainer/ops/embedding.h"
#include "trainer/ops/gelu.h"
#include "trainer/ops/layer_norm.h"
#include "trainer/ops/linear.h"
#include "trainer/ops/qk_norm.h"
#include "trainer/ops/rms_norm.h"
#include "trainer/ops/rope.h"
#include "trainer/ops/swiglu.h"

namespace temper::trainer {
namespace {

constexpr int kFull = 1;
constexpr int kSelective = 2;

struct Norm {
  at::Tensor weight;
  at::Tensor bias;  // of LayerNorm
};

std::pair<at::Tensor, at::Tensor> normed(const at::Tensor& x, const Norm& norm, double eps) {
  return norm.bias.defined() ? layer_norm(x, norm.weight, norm.bias, eps)
                             : rms_norm(x, norm.weight, eps);
}

at::Tensor normed_again(const at::Tensor& x, const Norm& norm, double eps) {
  return norm.bias.defined() ? layer_norm_again(x, norm.weight, norm.bias, eps)
                             : rms_norm_again(x, norm.weight, eps);
}

struct Layer {
  Norm attention_norm, mlp_norm;
  at::Tensor q_norm, k_norm;  // qwen3
  Projection qkv, attention_output, mlp_input, mlp_output;
  AttentionHeads heads;
};

// Tokens on their way into the first block, those that stand in front of them included.
struct Entry {
  at::Tensor x;
  RopeAngles angles;
  DocumentLayout documents;
  Longer longer;      // where there are virtual tokens
  at::Tensor prefix;  // where they are keys and values
};

class Decoder : public Model {
 public:
  Decoder(const ModelConfig& config, const DecoderNames& names, const ModelOptions& options);

  const ModelConfig& config() const override { return config_; }
  std::vector<Parameter>& parameters() override { return parameters_; }
  std::vector<LinearSlot> linears() override;
  at::Tensor hidden(const data::Batch& batch) override;
  at::Tensor hidden_cached(const at::Tensor& token_ids, std::span<const CachedRun> runs,
                           KvCache& cache) override;
  DecodeInputs decode_inputs(const at::Tensor& token_ids, std::span<const CachedRun> runs,
                             KvCache& cache) const override;
  at::Tensor decode(const DecodeInputs& inputs, const PageShape& pages) override;
  Embedding& embedding() override { return embedding_; }
  std::shared_ptr<const VirtualTokens>& virtual_tokens() override { return virtual_tokens_; }
  OutputHead& head() override { return head_; }
  BlockHooks*& block_hooks() override { return block_hooks_; }

 private:
  at::Tensor empty(at::IntArrayRef shape) const {
    return at::empty(shape, at::TensorOptions(options_.device).dtype(options_.compute));
  }
  at::Tensor add_parameter(const std::string& name, const at::Tensor& storage, bool decay);
  Norm add_norm(const std::string& name, int64_t dim);
  struct Part {
    const char* name;
    int64_t rows;
  };
  Projection add_projection(const std::string& prefix, const std::vector<Part>& parts,
                            int64_t columns, bool bias);
  std::vector<Part> query_key_value_parts() const;
  std::vector<Part> mlp_parts() const;
  std::string prefix_of(int64_t block) const {
    return std::string(names_.blocks) + "." + std::to_string(block) + ".";
  }
  void add_layer(int64_t index);

  Entry enter(const at::Tensor& token_ids, at::Tensor positions, DocumentLayout documents,
              const VirtualTokens* front) const;
  at::Tensor normed_projection(const at::Tensor& x, const Norm& norm, const Projection& projection,
                               at::Tensor& residual) const;
  at::Tensor queries_keys_values(const Layer& layer, const at::Tensor& x, const RopeAngles& angles,
                                 at::Tensor& residual) const;
  at::Tensor mlp(const Layer& layer, const at::Tensor& x) const;
  at::Tensor after_last(const at::Tensor& x) const {
    return normed(x, final_norm_, config_.norm_eps).second;
  }
  const VirtualTokens* in_front() const {
    return virtual_tokens_ && virtual_tokens_->context->enabled ? virtual_tokens_.get() : nullptr;
  }
  at::Tensor keys_values(const at::Tensor& prefix, size_t layer) const;
  at::Tensor through_blocks(const Entry& entry, const at::Tensor& table, const PageShape& pages);

  ModelConfig config_;
  const DecoderNames& names_;
  ModelOptions options_;
  std::vector<Parameter> parameters_;
  Embedding embedding_, positions_;
  std::shared_ptr<const VirtualTokens> virtual_tokens_;
  at::Tensor inverse_;  // frequencies of the rotary embedding, where the device makes the angles
  Norm final_norm_;
  OutputHead head_;
  std::vector<Layer> layers_;
  int64_t block_ = -1;  // what parameters are added to
  BlockHooks* block_hooks_ = nullptr;
};

Decoder::Decoder(const ModelConfig& config, const DecoderNames& names, const ModelOptions& options)
    : config_(config), names_(names), options_(options) {
  const auto add_matrix = [&](const std::string& module, int64_t rows) {
    return add_parameter(module + ".weight", empty({rows, config.hidden_size}), true);
  };
  embedding_.weight = add_matrix(names.embedding, config.vocab_size);
  if (config.learned_positions) {
    positions_.weight = add_matrix(names.positions, config.max_position_embeddings);
  } else {
    inverse_ = inverse_frequencies(config, options.device);
  }
  for (block_ = 0; block_ < config.num_hidden_layers; ++block_) add_layer(block_);
  block_ = -1;
  final_norm_ = add_norm(names.final_norm, config.hidden_size);
  if (config.num_labels > 0) {
    head_.weight = add_matrix("score", config.num_labels);
  } else if (config.tie_word_embeddings) {
    head_.weight = embedding_.weight;
  } else {
    head_.weight = add_matrix("lm_head", config.vocab_size);
  }
}

at::Tensor Decoder::add_parameter(const std::string& name, const at::Tensor& storage, bool decay) {
  Parameter parameter{.name = name,
                      .value = storage.detach(),
                      .master = {},
                      .decay = decay,
                      .dtype = options_.weights,
                      .block = block_};
  parameter.master = parameter.value;
  if (!options_.frozen) {
    parameter.value.requires_grad_(true);
    if (has_own_master(options_)) parameter.master = at::empty(storage.sizes(), storage.options().dtype(at::kFloat));
  }
  parameters_.push_back(parameter);
  return parameter.value;
}

Norm Decoder::add_norm(const std::string& name, int64_t dim) {
  Norm norm{.weight = add_parameter(name + ".weight", empty({dim}), false), .bias = {}};
  if (config_.layer_norm) norm.bias = add_parameter(name + ".bias", empty({dim}), false);
  return norm;
}

Projection Decoder::add_projection(const std::string& prefix, const std::vector<Part>& parts,
                                 int64_t columns, bool bias) {
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.rows;
  Projection projection;
  projection.float8 = options_.float8;
  if (!options_.quantize) projection.weight = empty({rows, columns});
  if (bias) projection.bias = empty({rows});
  int64_t first = 0;
  for (const Part& part : parts) {
    const std::string name = prefix + part.name;
    projection.rows.push_back(part.rows);
    if (options_.quantize) {
      projection.quantized.push_back({.kind = *options_.quantize, .rows = part.rows, .columns = columns});
    } else {
      projection.weights.push_back(
          add_parameter(name + ".weight", projection.weight.narrow(0, first, part.rows), true));
    }
    if (bias)
      projection.biases.push_back(
          add_parameter(name + ".bias", projection.bias.narrow(0, first, part.rows), false));
    first += part.rows;
  }
  return projection;
}

std::vector<Decoder::Part> Decoder::query_key_value_parts() const {
  const auto& [queries, keys, values] = names_.queries_keys_values;
  const int64_t query_rows = config_.num_attention_heads * config_.head_dim;
  const int64_t key_rows = config_.num_key_value_heads * config_.head_dim;
  if (*keys == '\0') return {{queries, query_rows + 2 * key_rows}};
  return {{queries, query_rows}, {keys, key_rows}, {values, key_rows}};
}

std::vector<Decoder::Part> Decoder::mlp_parts() const {
  const auto& [gate, up] = names_.mlp_input;
  if (*up == '\0') return {{gate, config_.intermediate_size}};
  return {{gate, config_.intermediate_size}, {up, config_.intermediate_size}};
}

void Decoder::add_layer(int64_t index) {
  const ModelConfig& c = config_;
  const std::string prefix = prefix_of(index);
  Layer layer;
  layer.heads = {c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.sliding_window[index]};
  layer.attention_norm = add_norm(prefix + names_.attention_norm, c.hidden_size);
  layer.qkv = add_projection(prefix, query_key_value_parts(), c.hidden_size, c.attention_bias);
  if (c.qk_norm) {
    layer.q_norm = add_norm(prefix + "self_attn.q_norm", c.head_dim).weight;
    layer.k_norm = add_norm(prefix + "self_attn.k_norm", c.head_dim).weight;
  }
  layer.attention_output = add_projection(prefix, {{names_.attention_output, c.hidden_size}},
                                          c.num_attention_heads * c.head_dim, c.output_bias);
  layer.mlp_norm = add_norm(prefix + names_.mlp_norm, c.hidden_size);
  layer.mlp_input = add_projection(prefix, mlp_parts(), c.hidden_size, c.mlp_bias);
  layer.mlp_output = add_projection(prefix, {{names_.mlp_output, c.hidden_size}},
                                    c.intermediate_size, c.mlp_bias);
  layers_.push_back(std::move(layer));
}

std::vector<LinearSlot> Decoder::linears() {
  std::vector<LinearSlot> slots;
  int64_t block = 0;
  const auto add = [&](Projection& projection, const std::vector<Part>& parts) {
    for (size_t i = 0; i < parts.size(); ++i) {
      const int64_t columns = projection.weight.defined() ? projection.weight.size(1)
                                                          : projection.quantized[i].columns;
      slots.push_back({.module = prefix_of(block) + parts[i].name,
                       .projection = &projection,
                       .part = i,
                       .in_features = columns,
                       .out_features = projection.rows[i],
                       .block = block});
    }
  };
  for (Layer& layer : layers_) {
    add(layer.qkv, query_key_value_parts());
    add(layer.attention_output, {{names_.attention_output, config_.hidden_size}});
    add(layer.mlp_input, mlp_parts());
    add(layer.mlp_output, {{names_.mlp_output, config_.hidden_size}});
    ++block;
  }
  return slots;
}

// Selective checkpointing keeps what products and attention give and computes norms and the MLP's
// activation again: a third of the activations for one pass over memory each.
at::Tensor Decoder::normed_projection(const at::Tensor& x, const Norm& norm,
                                      const Projection& projection, at::Tensor& residual) const {
  const double eps = config_.norm_eps;
  auto [through, y] = normed(x, norm, eps);
  residual = through;
  std::function<at::Tensor()> again;
  if (options_.activation_checkpointing == kSelective && at::GradMode::is_enabled()) {
    again = [kept = x.detach(), norm, eps] { return normed_again(kept, norm, eps); };
  }
  return linear(y, projection, {}, std::move(again));
}

at::Tensor Decoder::queries_keys_values(const Layer& layer, const at::Tensor& x,
                                        const RopeAngles& angles, at::Tensor& residual) const {
  const AttentionHeads& h = layer.heads;
  at::Tensor qkv = normed_projection(x, layer.attention_norm, layer.qkv, residual);
  if (config_.qk_norm)
    qkv = qk_norm(qkv, layer.q_norm, layer.k_norm, h.heads, h.kv_heads, config_.norm_eps);
  return config_.learned_positions ? qkv : rope(qkv, angles, h.heads + h.kv_heads, h.head_dim);
}

at::Tensor Decoder::mlp(const Layer& layer, const at::Tensor& x) const {
  at::Tensor residual;
  const std::optional<Gelu> form = config_.gelu;
  const at::Tensor inner = normed_projection(x, layer.mlp_norm, layer.mlp_input, residual);
  std::function<at::Tensor()> again;
  if (options_.activation_checkpointing == kSelective && at::GradMode::is_enabled()) {
    again = [kept = inner.detach(), form] {
      return form ? gelu_again(kept, *form) : swiglu_again(kept);
    };
  }
  return linear(form ? gelu(inner, *form) : swiglu(inner), layer.mlp_output, residual,
                std::move(again));
}

// Of a prefix [n, 2 layers K E]: a layer's keys and values side by side, as qkv has them.
at::Tensor Decoder::keys_values(const at::Tensor& prefix, size_t layer) const {
  const int64_t columns = 2 * config_.num_key_value_heads * config_.head_dim;
  return prefix.narrow(1, static_cast<int64_t>(layer) * columns, columns);
}

// `token_ids`, `positions` [N] and the documents on the host.
Entry Decoder::enter(const at::Tensor& token_ids, at::Tensor positions, DocumentLayout documents,
                     const VirtualTokens* front) const {
  Entry entry;
  entry.x = embed(sent_to(options_.device, token_ids), embedding_);
  if (front) {
    entry.longer = longer_batch(positions, documents, front->count);
    const at::Tensor vectors = front->vectors();
    if (front->prefix) {
      entry.prefix = vectors;
      positions = positions + front->count;
    } else {
      entry.x = insert_rows(entry.x, vectors, entry.longer);
      positions = entry.longer.positions;
      documents = entry.longer.documents;
    }
  }
  if (config_.learned_positions) {
    // Padding, a document by itself, may count on behind the last position.
    const at::Tensor known = positions.clamp_max(config_.max_position_embeddings - 1);
    entry.x = entry.x + embed(sent_to(options_.device, known), positions_);
  } else {
    entry.angles = rope_angles(config_, positions, documents.ends, options_.device, inverse_);
  }
  entry.documents =
      on_device(entry.prefix.defined() ? entry.longer.documents : documents, options_.device);
  return entry;
}

// Of documents that the device alone knows: none is longer than a row.
DocumentLayout layout_of(const data::Batch& batch) {
  if (batch.document_ends.is_cpu()) return {batch.document_ends, batch.prefixes};
  const int64_t length = batch.token_ids.size(1);
  return {.ends = at::arange(0, batch.token_ids.numel() + 1, length, at::kInt),
          .device_ends = batch.document_ends};
}

at::Tensor Decoder::hidden(const data::Batch& batch) {
  const int64_t rows = batch.token_ids.size(0), length = batch.token_ids.size(1);
  const VirtualTokens* front = in_front();
  const auto [first, angles, documents, longer, prefix] =
      enter(batch.token_ids.reshape({-1}), batch.positions.reshape({-1}),
            layout_of(batch), front);
  at::Tensor x = first;
  if (block_hooks_) block_hooks_->begin_forward();
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto block = static_cast<int64_t>(i);
    x = enter_block(x, block_hooks_, block);
    // By value: checkpoint() calls it again in backward, when this function has returned.
    const auto forward = [this, &layer, angles = angles, documents = documents, longer = longer](
                             const at::Tensor& in, const at::Tensor& before) {
      at::Tensor residual;
      const at::Tensor qkv = queries_keys_values(layer, in, angles, residual);
      // The prefix asks nothing: its queries are zero and what they find is dropped.
      const at::Tensor attended =
          before.defined()
              ? take_tokens(attention(insert_rows(qkv, before, longer), documents, layer.heads),
                            longer)
              : attention(qkv, documents, layer.heads);
      return mlp(layer, linear(attended, layer.attention_output, residual));
    };
    const at::Tensor before = prefix.defined() ? keys_values(prefix, i) : at::Tensor();
    x = options_.activation_checkpointing == kFull ? checkpoint(forward, x, before)
                                                   : forward(x, before);
    x = leave_block(x, block_hooks_, block);
  }
  if (front && !front->prefix) x = take_tokens(x, longer);
  return after_last(x).view({rows, length, config_.hidden_size});
}

// New sequences are a packed batch, as in hidden(); of others each new token looks at its pages.
at::Tensor Decoder::hidden_cached(const at::Tensor& token_ids, std::span<const CachedRun> runs,
                                  KvCache& cache) {
  const bool fresh = cache.length(runs.front().sequence) == 0;
  for (const CachedRun& run : runs) {
    TEMPER_CHECK((cache.length(run.sequence) == 0) == fresh,
                 "new sequences and others in one call");
  }
  if (!fresh) {
    return decode(sent_to(options_.device, decode_inputs(token_ids, runs, cache)), cache.shape());
  }
  const at::AutoGradMode off(false);
  const VirtualTokens* front = in_front();
  at::Tensor positions = at::empty_like(token_ids);
  at::Tensor ends = at::zeros({static_cast<int64_t>(runs.size()) + 1}, at::kInt);
  int64_t* position = positions.mutable_data_ptr<int64_t>();
  int32_t* end = ends.mutable_data_ptr<int32_t>();
  std::vector<PagedRun> pages;
  for (const CachedRun& run : runs) {
    for (int64_t i = 0; i < run.tokens; ++i) *position++ = i;
    end[1] = end[0] + static_cast<int32_t>(run.tokens);
    ++end;
    pages.push_back(cache.extend(run.sequence, run.tokens + (front ? front->count : 0)));
  }
  return through_blocks(enter(token_ids, positions, {ends}, front),
                        page_table(pages, options_.device), cache.shape());
}

DecodeInputs Decoder::decode_inputs(const at::Tensor& token_ids, std::span<const CachedRun> runs,
                                    KvCache& cache) const {
  std::vector<PagedRun> pages;
  at::Tensor ends = at::zeros({static_cast<int64_t>(runs.size()) + 1}, at::kInt);
  int32_t* end = ends.mutable_data_ptr<int32_t>();
  for (const CachedRun& run : runs) {
    pages.push_back(cache.extend(run.sequence, run.tokens));
    end[1] = end[0] + static_cast<int32_t>(run.tokens);
    ++end;
  }
  DecodeInputs inputs{.token_ids = token_ids, .table = page_table(pages), .angles = {}};
  if (!config_.learned_positions && !inverse_.defined()) {
    const at::Tensor positions = inputs.table.narrow(0, 0, token_ids.numel());
    inputs.angles = rope_angles(config_, positions, ends, at::kCPU);
  }
  return inputs;
}

at::Tensor Decoder::decode(const DecodeInputs& inputs, const PageShape& pages) {
  const at::AutoGradMode off(false);
  const at::Tensor positions = inputs.table.narrow(0, 0, inputs.token_ids.numel());
  Entry entry;
  entry.x = embed(inputs.token_ids, embedding_);
  if (config_.learned_positions) {
    entry.x = entry.x + embed(positions, positions_);
  } else if (inputs.angles.cos.defined()) {
    entry.angles = inputs.angles;
  } else {
    entry.angles = rope_angles(config_, positions, {}, options_.device, inverse_);
  }
  return through_blocks(entry, inputs.table, pages);
}

// Of tokens whose keys and values go to the pages of `table`.
at::Tensor Decoder::through_blocks(const Entry& entry, const at::Tensor& table,
                                   const PageShape& pages) {
  const WithoutFloat8 as_stored;
  const auto& [first, angles, documents, longer, prefix] = entry;
  const bool fresh = documents.ends.defined();
  at::Tensor x = first;
  if (block_hooks_) block_hooks_->begin_forward();
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto index = static_cast<int64_t>(i);
    x = enter_block(x, block_hooks_, index);
    at::Tensor residual;
    at::Tensor qkv = queries_keys_values(layer, x, angles, residual);
    if (prefix.defined()) qkv = insert_rows(qkv, keys_values(prefix, i), longer);
    store_in_pages(qkv, table, pages, index);
    at::Tensor attended = fresh ? attention(qkv, documents, layer.heads)
                                : attention_in_pages(qkv, table, pages, index, layer.heads);
    if (prefix.defined()) attended = take_tokens(attended, longer);
    x = leave_block(mlp(layer, linear(attended, layer.attention_output, residual)), block_hooks_,
                    index);
  }
  if (longer.tokens.defined() && !prefix.defined()) x = take_tokens(x, longer);
  return after_last(x);
}

}  // namespace

DecodeInputs sent_to(at::Device device, const DecodeInputs& inputs) {
  const auto there = [device](const at::Tensor& tensor) {
    return tensor.defined() ? sent_to(device, tensor) : tensor;
  };
  return {.token_ids = there(inputs.token_ids),
          .table = there(inputs.table),
          .angles = {.cos = there(inputs.angles.cos), .sin = there(inputs.angles.sin)}};
}

std::unique_ptr<Model> build_decoder(const ModelConfig& config, const DecoderNames& names,
                                     const ModelOptions& options) {
  return std::make_unique<Decoder>(config, names, options);
}

}  // namespace temper::trainer
