// config.json of GPT-2 (Radford et al. 2019) and what transformers takes where it is silent.
#include "trainer/models/config.h"
#include "trainer/models/config_reader.h"
#include "trainer/models/registry.h"

namespace temper::trainer {
namespace {

// transformers takes the common name too.
int64_t size_of(const ConfigReader& top, const char* key, const char* common, int64_t otherwise) {
  return top.integer(top.find(key) == nullptr ? common : key, otherwise);
}

std::optional<Gelu> read_activation(const ConfigReader& top) {
  const std::string name = top.text("activation_function", "gelu_new");
  if (name == "gelu") return Gelu::kErf;
  if (name != "gelu_new" && name != "gelu_pytorch_tanh") {
    top.fail("activation_function", "supported are gelu_new, gelu_pytorch_tanh and gelu");
  }
  return Gelu::kTanh;
}

}  // namespace

void read_gpt2(const Architecture& row, const ConfigReader& top, ModelConfig& config) {
  config.vocab_size = top.integer("vocab_size", 50257);
  config.hidden_size = size_of(top, "n_embd", "hidden_size", 768);
  config.intermediate_size = top.integer("n_inner", 4 * config.hidden_size);
  config.num_hidden_layers = size_of(top, "n_layer", "num_hidden_layers", 12);
  config.num_attention_heads = size_of(top, "n_head", "num_attention_heads", 12);
  config.num_key_value_heads = config.num_attention_heads;
  config.head_dim = config.hidden_size / config.num_attention_heads;
  config.max_position_embeddings =
      size_of(top, "n_positions", "max_position_embeddings", row.default_positions);
  config.norm_eps = top.number("layer_norm_epsilon", 1e-5);
  config.gelu = read_activation(top);
  config.tie_word_embeddings = top.boolean("tie_word_embeddings", true);
  config.layer_norm = config.learned_positions = config.stores_transposed = true;
  config.small_residual_start = true;
  config.attention_bias = config.output_bias = config.mlp_bias = true;
  config.sliding_window.assign(static_cast<size_t>(config.num_hidden_layers), 0);
  for (const char* key : {"attn_pdrop", "embd_pdrop", "resid_pdrop"}) {
    if (top.number(key, 0.1) > 0) config.dropout.emplace_back(key);
  }

  if (config.hidden_size % config.num_attention_heads != 0) {
    top.fail(top.find("n_head") != nullptr ? "n_head" : "num_attention_heads",
             "must divide n_embd = " + std::to_string(config.hidden_size));
  }
  // (Scores are float32 anyway, which is all that reorder_and_upcast_attn asks for.)
  if (!top.boolean("scale_attn_weights", true)) {
    top.fail("scale_attn_weights", "only true is supported");
  }
  for (const char* key : {"scale_attn_by_inverse_layer_idx", "add_cross_attention"}) {
    if (top.boolean(key, false)) top.fail(key, "only false is supported");
  }
}

}  // namespace temper::trainer
