// The Llama decoder (Touvron et al. 2023, arXiv:2302.13971; Grattafiori et al. 2024,
// arXiv:2407.21783) and those that differ from it by fields of ModelConfig: Mistral, Qwen2, Qwen3.
// For each layer, with x the residual stream:
//
//     x = x + W_o attention(rope(norm_qk(W_qkv rms_norm(x))))
//     x = x + W_down (silu(W_gate rms_norm(x)) * W_up rms_norm(x))
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "trainer/generation/kv_cache.h"
#include "trainer/models/registry.h"
#include "trainer/models/rope_frequencies.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/checkpoint.h"
#include "trainer/ops/device.h"
#include "trainer/ops/embedding.h"
#include "trainer/ops/linear.h"
#include "trainer/ops/qk_norm.h"
#include "trainer/ops/rms_norm.h"
#include "trainer/ops/rope.h"
#include "trainer/ops/swiglu.h"

namespace temper::trainer {
namespace {

constexpr int kFull = 1;
constexpr int kSelective = 2;

struct Layer {
  at::Tensor input_norm, post_attention_norm;
  at::Tensor q_norm, k_norm;  // qwen3
  Projection qkv, output, gate_up, down;
  AttentionHeads heads;
};

class Llama : public Model {
 public:
  Llama(const ModelConfig& config, const ModelOptions& options);

  const ModelConfig& config() const override { return config_; }
  std::vector<Parameter>& parameters() override { return parameters_; }
  std::vector<LinearSlot> linears() override;
  at::Tensor hidden(const data::Batch& batch) override;
  at::Tensor hidden_cached(const at::Tensor& token_ids, std::span<const CachedRun> runs,
                           KvCache& cache) override;
  Embedding& embedding() override { return embedding_; }
  std::shared_ptr<const VirtualTokens>& virtual_tokens() override { return virtual_tokens_; }
  OutputHead& head() override { return head_; }
  BlockHooks*& block_hooks() override { return block_hooks_; }

 private:
  at::Tensor empty(at::IntArrayRef shape) const {
    return at::empty(shape, at::TensorOptions(options_.device).dtype(options_.compute));
  }
  at::Tensor add_parameter(const std::string& name, const at::Tensor& storage, bool decay);
  at::Tensor add_norm(const std::string& name, int64_t dim);
  struct Part {
    const char* name;
    int64_t rows;
  };
  Projection add_projection(const std::string& prefix, const std::vector<Part>& parts,
                            int64_t columns, bool bias);
  void add_layer(int64_t index);

  at::Tensor normed_projection(const at::Tensor& x, const at::Tensor& norm,
                               const Projection& projection, at::Tensor& residual) const;
  at::Tensor queries_keys_values(const Layer& layer, const at::Tensor& x, const RopeAngles& angles,
                                 at::Tensor& residual) const;
  at::Tensor mlp(const Layer& layer, const at::Tensor& x) const;
  const VirtualTokens* in_front() const {
    return virtual_tokens_ && virtual_tokens_->context->enabled ? virtual_tokens_.get() : nullptr;
  }
  at::Tensor keys_values(const at::Tensor& prefix, size_t layer) const;

  ModelConfig config_;
  ModelOptions options_;
  std::vector<Parameter> parameters_;
  Embedding embedding_;
  std::shared_ptr<const VirtualTokens> virtual_tokens_;
  at::Tensor final_norm_;
  OutputHead head_;
  std::vector<Layer> layers_;
  int64_t block_ = -1;  // what parameters are added to
  BlockHooks* block_hooks_ = nullptr;
};

Llama::Llama(const ModelConfig& config, const ModelOptions& options)
    : config_(config), options_(options) {
  const auto matrix = [&](int64_t rows, int64_t columns) {
    return empty({rows, columns});
  };
  embedding_.weight = add_parameter("model.embed_tokens.weight",
                             matrix(config.vocab_size, config.hidden_size), true);
  for (block_ = 0; block_ < config.num_hidden_layers; ++block_) add_layer(block_);
  block_ = -1;
  final_norm_ = add_norm("model.norm.weight", config.hidden_size);
  if (config.num_labels > 0) {
    head_.weight = add_parameter("score.weight", matrix(config.num_labels, config.hidden_size), true);
  } else if (config.tie_word_embeddings) {
    head_.weight = embedding_.weight;
  } else {
    head_.weight = add_parameter("lm_head.weight", matrix(config.vocab_size, config.hidden_size), true);
  }
}

at::Tensor Llama::add_parameter(const std::string& name, const at::Tensor& storage, bool decay) {
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

at::Tensor Llama::add_norm(const std::string& name, int64_t dim) {
  return add_parameter(name, empty({dim}), false);
}

Projection Llama::add_projection(const std::string& prefix, const std::vector<Part>& parts,
                                 int64_t columns, bool bias) {
  int64_t rows = 0;
  for (const Part& part : parts) rows += part.rows;
  Projection projection;
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

void Llama::add_layer(int64_t index) {
  const ModelConfig& c = config_;
  const std::string prefix = "model.layers." + std::to_string(index) + ".";
  const int64_t queries = c.num_attention_heads * c.head_dim;
  const int64_t keys = c.num_key_value_heads * c.head_dim;
  Layer layer;
  layer.heads = {c.num_attention_heads, c.num_key_value_heads, c.head_dim, c.sliding_window[index]};
  layer.input_norm = add_norm(prefix + "input_layernorm.weight", c.hidden_size);
  layer.qkv = add_projection(prefix + "self_attn.",
                             {{"q_proj", queries}, {"k_proj", keys}, {"v_proj", keys}},
                             c.hidden_size, c.attention_bias);
  if (c.qk_norm) {
    layer.q_norm = add_norm(prefix + "self_attn.q_norm.weight", c.head_dim);
    layer.k_norm = add_norm(prefix + "self_attn.k_norm.weight", c.head_dim);
  }
  layer.output =
      add_projection(prefix + "self_attn.", {{"o_proj", c.hidden_size}}, queries, c.output_bias);
  layer.post_attention_norm = add_norm(prefix + "post_attention_layernorm.weight", c.hidden_size);
  layer.gate_up = add_projection(
      prefix + "mlp.", {{"gate_proj", c.intermediate_size}, {"up_proj", c.intermediate_size}},
      c.hidden_size, c.mlp_bias);
  layer.down = add_projection(prefix + "mlp.", {{"down_proj", c.hidden_size}}, c.intermediate_size,
                              c.mlp_bias);
  layers_.push_back(std::move(layer));
}

std::vector<LinearSlot> Llama::linears() {
  std::vector<LinearSlot> slots;
  int64_t block = 0;
  const auto add = [&](const std::string& prefix, Projection& projection,
                       const std::vector<const char*>& names) {
    for (size_t i = 0; i < names.size(); ++i) {
      const int64_t columns = projection.weight.defined() ? projection.weight.size(1)
                                                          : projection.quantized[i].columns;
      slots.push_back({.module = prefix + names[i],
                       .projection = &projection,
                       .part = i,
                       .in_features = columns,
                       .out_features = projection.rows[i],
                       .block = block});
    }
  };
  for (Layer& layer : layers_) {
    const std::string prefix = "model.layers." + std::to_string(block) + ".";
    add(prefix + "self_attn.", layer.qkv, {"q_proj", "k_proj", "v_proj"});
    add(prefix + "self_attn.", layer.output, {"o_proj"});
    add(prefix + "mlp.", layer.gate_up, {"gate_proj", "up_proj"});
    add(prefix + "mlp.", layer.down, {"down_proj"});
    ++block;
  }
  return slots;
}

// Selective checkpointing keeps what products and attention give and computes norms and SwiGLU
// again: a third of the activations for one pass over memory each.
at::Tensor Llama::normed_projection(const at::Tensor& x, const at::Tensor& norm,
                                    const Projection& projection, at::Tensor& residual) const {
  const double eps = config_.rms_norm_eps;
  auto [through, normed] = rms_norm(x, norm, eps);
  residual = through;
  std::function<at::Tensor()> again;
  if (options_.activation_checkpointing == kSelective && at::GradMode::is_enabled()) {
    again = [kept = x.detach(), norm, eps] { return rms_norm_again(kept, norm, eps); };
  }
  return linear(normed, projection, {}, std::move(again));
}

at::Tensor Llama::queries_keys_values(const Layer& layer, const at::Tensor& x,
                                      const RopeAngles& angles, at::Tensor& residual) const {
  const AttentionHeads& h = layer.heads;
  at::Tensor qkv = normed_projection(x, layer.input_norm, layer.qkv, residual);
  if (config_.qk_norm)
    qkv = qk_norm(qkv, layer.q_norm, layer.k_norm, h.heads, h.kv_heads, config_.rms_norm_eps);
  return rope(qkv, angles, h.heads + h.kv_heads, h.head_dim);
}

at::Tensor Llama::mlp(const Layer& layer, const at::Tensor& x) const {
  at::Tensor residual;
  const at::Tensor gate_up =
      normed_projection(x, layer.post_attention_norm, layer.gate_up, residual);
  std::function<at::Tensor()> again;
  if (options_.activation_checkpointing == kSelective && at::GradMode::is_enabled()) {
    again = [kept = gate_up.detach()] { return swiglu_again(kept); };
  }
  return linear(swiglu(gate_up), layer.down, residual, std::move(again));
}

// Of a prefix [n, 2 layers K E]: a layer's keys and values side by side, as qkv has them.
at::Tensor Llama::keys_values(const at::Tensor& prefix, size_t layer) const {
  const int64_t columns = 2 * config_.num_key_value_heads * config_.head_dim;
  return prefix.narrow(1, static_cast<int64_t>(layer) * columns, columns);
}

at::Tensor Llama::hidden(const data::Batch& batch) {
  const int64_t rows = batch.token_ids.size(0), length = batch.token_ids.size(1);
  at::Tensor positions = batch.positions.reshape({-1});
  DocumentLayout documents{batch.document_ends, batch.prefixes};
  at::Tensor x = embed(sent_to(options_.device, batch.token_ids.reshape({-1})), embedding_);
  const VirtualTokens* front = in_front();
  Longer longer;
  at::Tensor prefix;
  if (front) {
    longer = longer_batch(positions, documents, front->count);
    const at::Tensor vectors = front->vectors();
    if (front->prefix) {
      prefix = vectors;
      positions = positions + front->count;
    } else {
      x = insert_rows(x, vectors, longer);
      positions = longer.positions;
      documents = longer.documents;
    }
  }
  const RopeAngles angles = rope_angles(config_, positions, documents.ends, options_.device);
  documents = on_device(documents, options_.device);
  if (block_hooks_) block_hooks_->begin_forward();
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto block = static_cast<int64_t>(i);
    x = enter_block(x, block_hooks_, block);
    // By value: checkpoint() calls it again in backward, when this function has returned.
    const auto forward = [this, &layer, angles, documents, longer](const at::Tensor& in,
                                                              const at::Tensor& before) {
      at::Tensor residual;
      const at::Tensor qkv = queries_keys_values(layer, in, angles, residual);
      // The prefix asks nothing: its queries are zero and what they find is dropped.
      const at::Tensor attended =
          before.defined() ? take_tokens(attention(insert_rows(qkv, before, longer),
                                                   longer.documents, layer.heads),
                                         longer)
                           : attention(qkv, documents, layer.heads);
      return mlp(layer, linear(attended, layer.output, residual));
    };
    const at::Tensor before = prefix.defined() ? keys_values(prefix, i) : at::Tensor();
    x = options_.activation_checkpointing == kFull ? checkpoint(forward, x, before)
                                                   : forward(x, before);
    x = leave_block(x, block_hooks_, block);
  }
  if (front && !front->prefix) x = take_tokens(x, longer);
  return rms_norm(x, final_norm_, config_.rms_norm_eps)
      .second.view({rows, length, config_.hidden_size});
}

// New sequences are a packed batch, as in hidden(); of others each new token looks at its pages.
at::Tensor Llama::hidden_cached(const at::Tensor& token_ids, std::span<const CachedRun> runs,
                                KvCache& cache) {
  const at::AutoGradMode off(false);
  const bool fresh = cache.length(runs.front().sequence) == 0;
  at::Tensor positions = at::empty_like(token_ids);
  DocumentLayout documents{at::zeros({static_cast<int64_t>(runs.size()) + 1}, at::kInt)};
  int64_t* position = positions.mutable_data_ptr<int64_t>();
  int32_t* end = documents.ends.mutable_data_ptr<int32_t>();
  for (const CachedRun& run : runs) {
    const int64_t before = cache.length(run.sequence);
    TEMPER_CHECK((before == 0) == fresh, "new sequences and others in one call");
    for (int64_t i = 0; i < run.tokens; ++i) *position++ = before + i;
    end[1] = end[0] + static_cast<int32_t>(run.tokens);
    ++end;
  }
  at::Tensor x = embed(sent_to(options_.device, token_ids), embedding_);
  const VirtualTokens* front = fresh ? in_front() : nullptr;
  Longer longer;
  at::Tensor prefix;
  if (front) {
    longer = longer_batch(positions, documents, front->count);
    const at::Tensor vectors = front->vectors();
    if (front->prefix) {
      prefix = vectors;
      positions = positions + front->count;
    } else {
      x = insert_rows(x, vectors, longer);
      positions = longer.positions;
      documents = longer.documents;
    }
  }
  const RopeAngles angles = rope_angles(config_, positions, documents.ends, options_.device);
  if (prefix.defined()) documents = longer.documents;
  std::vector<PagedRun> pages;
  for (const CachedRun& run : runs) {
    pages.push_back(cache.extend(run.sequence, run.tokens + (front ? front->count : 0)));
  }
  documents = on_device(documents, options_.device);
  const at::Tensor table =
      options_.device.is_cpu() ? at::Tensor() : page_table(pages, options_.device);
  if (block_hooks_) block_hooks_->begin_forward();
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    const auto index = static_cast<int64_t>(i);
    x = enter_block(x, block_hooks_, index);
    at::Tensor residual;
    at::Tensor qkv = queries_keys_values(layer, x, angles, residual);
    if (prefix.defined()) qkv = insert_rows(qkv, keys_values(prefix, i), longer);
    store_in_pages(qkv, pages, cache.shape(), index, table);
    at::Tensor attended =
        fresh ? attention(qkv, documents, layer.heads)
              : attention_in_pages(qkv, pages, cache.shape(), index, layer.heads, table);
    if (prefix.defined()) attended = take_tokens(attended, longer);
    x = leave_block(mlp(layer, linear(attended, layer.output, residual)), block_hooks_, index);
  }
  if (front && !front->prefix) x = take_tokens(x, longer);
  return rms_norm(x, final_norm_, config_.rms_norm_eps).second;
}

}  // namespace

std::unique_ptr<Model> build_llama(const ModelConfig& config, const ModelOptions& options) {
  return std::make_unique<Llama>(config, options);
}

}  // namespace temper::trainer
