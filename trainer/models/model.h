#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/block_hooks.h"
#include "trainer/models/config.h"
#include "trainer/models/virtual_tokens.h"
#include "trainer/ops/embedding.h"
#include "trainer/ops/float8.h"
#include "trainer/ops/head_cross_entropy.h"
#include "trainer/ops/linear.h"
#include "trainer/ops/quantized.h"

namespace temper::data {
struct Batch;
}

/// A decoder: parameters with their safetensors names, and hidden states from a packed batch. A model knows one device and
/// nothing of ranks; the head and the loss are the objective's (ops/head_cross_entropy.h), so logits of a batch never exist.
namespace temper::trainer {

/// A trained or frozen tensor. `value` is the leaf that the forward pass uses, in the compute type. Where that (or
/// model.dtype) is not float32 and the tensor is trained, `master` holds the float32 weights that the optimizer updates; else
/// `master` is `value` itself.
struct Parameter {
  std::string name;      // as in safetensors: "model.layers.0.self_attn.q_proj.weight"
  at::Tensor value;
  at::Tensor master;
  bool decay = true;     // weight decay applies: not for biases and norms
  at::ScalarType dtype = at::kFloat;  // what value is rounded to, whatever its type: model.dtype, peft.dtype
  double lr_scale = 1;   // of the learning rate (LoRA+)
  int64_t block = -1;    // of the decoder that alone reads it; -1: none
  bool trainable() const { return value.requires_grad(); }
};

struct ModelOptions {
  at::ScalarType compute = at::kFloat;   // train.precision
  at::ScalarType weights = at::kFloat;   // model.dtype: what forward sees is rounded to it
  int activation_checkpointing = 0;      // 0 none, 1 full, 2 selective (recipes::ActivationCheckpointing)
  bool frozen = false;                   // nothing is trained (adapters may be added): no masters
  std::optional<QuantKind> quantize{};   // linear layers but the output head are held in 4 or 8 bits; needs `frozen`
  bool double_quant = true;
  std::optional<Float8Scaling> float8{};  // products of linear layers but the output head (ops/float8.h); not with `quantize`
  at::Device device = at::kCPU;          // meta: shapes alone, for plans
};

/// A linear layer by its module name: part `part` of a projection of the model.
struct LinearSlot {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  Projection* projection = nullptr;
  size_t part = 0;
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t block = 0;
};

class KvCache;        // generation/kv_cache.h
struct DecodeInputs;  // decode_inputs.h
struct PageShape;     // ops/paged_attention.h

/// New tokens of a sequence of a KvCache.
struct CachedRun {
  int64_t sequence = 0;
  int64_t tokens = 0;
};

class Model {
 public:
  virtual ~Model() = default;
  virtual const ModelConfig& config() const = 0;
  /// In forward order; tied weights once (under the embedding's name). Quantised weights are not among them.
  virtual std::vector<Parameter>& parameters() = 0;
  /// The linear layers of the blocks, in forward order.
  virtual std::vector<LinearSlot> linears() = 0;
  /// Final hidden states (after the last norm) [B, T, D] in the compute type; differentiable unless in no-grad mode.
  virtual at::Tensor hidden(const data::Batch& batch) = 0;
  /// Hidden states [N, D] of the next tokens [N] int64 of several sequences, one sequence after the other, given and extending
  /// what `cache` holds of them (no-grad). Either all of them are new (prefill) or none is.
  virtual at::Tensor hidden_cached(const at::Tensor& token_ids, std::span<const CachedRun> runs, KvCache& cache) = 0;
  /// hidden_cached() of sequences that are not new, in two parts. The first is the host's: it extends what `cache` holds of the
  /// sequences (rows may be KvCache::kNobody's).
  virtual DecodeInputs decode_inputs(const at::Tensor& token_ids, std::span<const CachedRun> runs, KvCache& cache) const = 0;
  /// The second, of `inputs` where the model is: hidden states [N, D]. It can be recorded (ops/device_graph.h) and done again on
  /// other inputs of the same shapes.
  virtual at::Tensor decode(const DecodeInputs& inputs, const PageShape& pages) = 0;
  virtual Embedding& embedding() = 0;
  /// In front of every document that hidden() and hidden_cached() see (they are part of a sequence's length); null: none.
  virtual std::shared_ptr<const VirtualTokens>& virtual_tokens() = 0;
  /// The output projection; its weight is the embedding's when tied, of a classifier "score.weight".
  virtual OutputHead& head() = 0;
  /// Who is told of blocks; null: nobody.
  virtual BlockHooks*& block_hooks() = 0;
};

/// This rank makes no more passes through the model for now; others may (BlockHooks::end_passes). Collective where they are told.
void end_passes(Model& model);

/// Builds the model for config.architecture from the registry. Weights are uninitialised. Throws UserError for an
/// architecture that is not there (lists what is).
std::unique_ptr<Model> build_model(const ModelConfig& config, const ModelOptions& options);

/// Reads weights of `directory` (model.safetensors or model.safetensors.index.json) into values and masters. Checks everything
/// before use: missing, unknown and misshapen tensors, NaN and infinities, pickle-only directories; throws UserError with all findings.
/// Rows of embedding and head that the files lack (with_tokens) are the mean of those they have; a new head (with_score_head) is
/// left to draw_head.
void load_weights(Model& model, const ModelOptions& options, const std::filesystem::path& directory);

/// One tensor of a model directory, as it is stored (quantised: the values it stands for), with the rows that `config` has added.
/// Throws UserError when it is not there.
at::Tensor stored_tensor(const std::filesystem::path& directory, const std::string& name, const ModelConfig& config);

/// Draws weights from config.json alone as transformers does (normal with initializer_range, norms one, biases zero),
/// from the seed of each parameter's name: the same on every rank and layout.
void draw_weights(Model& model, const ModelOptions& options, int64_t seed);

/// Draws a head that the files lack (config.new_head) as draw_weights does; else nothing.
void draw_head(Model& model, int64_t seed);

/// Copies master into value, rounded to the parameter's dtype, where they differ. The optimizers do this in their own pass.
void refresh_values(Model& model);

/// Lets `parameter` be trained, with a master of its own where the options ask for one; its value stays.
void make_trainable(Parameter& parameter, const ModelOptions& options);

/// The masters of `parameter`'s kind are separate float32 tensors.
bool has_own_master(const ModelOptions& options);

/// Multiply-adds x 2 of forward + backward for one token: 6 a matmul weight (4 where `frozen`: adapters) + causal attention.
double training_flops_per_token(const ModelConfig& config, double mean_attended_length, bool frozen = false);

}  // namespace temper::trainer
