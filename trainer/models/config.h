#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/io/json.h"
#include "trainer/ops/gelu.h"

/// config.json of a decoder, in the names of transformers 5.23 that most have; old spellings (rope_theta, rope_scaling, torch_dtype)
/// are read too.
namespace temper::trainer {

struct RopeConfig {
  std::string type = "default";  // default | linear | dynamic | yarn | longrope | llama3
  double theta = 10000.0;
  double factor = 1.0;
  double partial_rotary_factor = 1.0;
  double low_freq_factor = 1.0;          // llama3
  double high_freq_factor = 4.0;         // llama3
  int64_t original_max_position_embeddings = 0;
  std::optional<double> attention_factor;  // yarn, longrope
  double beta_fast = 32.0;               // yarn
  double beta_slow = 1.0;                // yarn
  std::optional<double> mscale;          // yarn
  std::optional<double> mscale_all_dim;  // yarn
  bool truncate = true;                  // yarn
  std::vector<double> short_factor;      // longrope
  std::vector<double> long_factor;       // longrope
};

struct ModelConfig {
  std::string architecture;  // "LlamaForCausalLM", ...
  std::string model_type;
  int64_t vocab_size = 0;
  int64_t added_rows = 0;          // of vocab_size: those that the files lack (with_tokens)
  std::vector<int64_t> added_ids;  // tokens that are new to the model: adapters train their rows
  int64_t num_labels = 0;          // outputs of a classification head, "score.weight"; 0: a language model
  bool new_head = false;           // the files have no such head: draw_head
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double norm_eps = 1e-6;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;  // never with a classification head
  bool attention_bias = false;     // on q, k, v (qwen2: always; llama: also on o)
  bool output_bias = false;        // on o
  bool mlp_bias = false;
  bool qk_norm = false;            // qwen3: RMSNorm of queries and keys over the head
  bool layer_norm = false;         // gpt2: LayerNorm with biases in the place of RMSNorm
  bool learned_positions = false;  // gpt2: vectors added to the embedding in the place of rotated queries and keys
  std::optional<Gelu> gelu;        // gpt2: the MLP's activation, without a gate; none: SwiGLU
  bool stores_transposed = false;  // gpt2: is_stored_transposed (decoder_names.h)
  bool small_residual_start = false;  // gpt2: draws what is added to the residual stream 1 / sqrt(2 layers) as large
  std::vector<std::string> dropout;   // keys of the model's own dropout that are not 0: it is not applied (docs/differences.md)
  /// Per layer: tokens a position may look back at (itself included), or 0 for all. Size num_hidden_layers.
  std::vector<int64_t> sliding_window;
  RopeConfig rope;
  std::string stored_dtype;        // "float32" | "bfloat16" | "float16" | ""
  data::Json json;                 // the file, for export
};

/// Throws UserError naming file and key for what is missing, of the wrong type, inconsistent or not supported.
ModelConfig load_config(const std::filesystem::path& model_directory);

/// The same model with rows for at least `tokens` ids, in config.json too; `added` of them are new. Rows that the files lack are the
/// mean of those they have.
ModelConfig with_tokens(ModelConfig config, int64_t tokens, const std::vector<int32_t>& added = {});

/// The language model of `config` with a new head of `labels` outputs in place of its own, in config.json too
/// ("LlamaForSequenceClassification"). `pad_id`: transformers reads the scores at the last token that is another one.
ModelConfig with_score_head(ModelConfig config, int64_t labels, std::optional<int32_t> pad_id);

}  // namespace temper::trainer
