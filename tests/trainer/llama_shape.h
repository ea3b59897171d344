#pragma once

#include <cstdint>

#include "trainer/models/config.h"

namespace temper::trainer {

struct LlamaShape {
  int64_t vocabulary = 20;
  int64_t hidden = 16;
  int64_t mlp = 24;
  int64_t layers = 2;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t context = 64;
};

/// A Llama of that shape, untied, without windows; its heads share out the hidden size.
inline ModelConfig llama_of(const LlamaShape& shape) {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.model_type = "llama";
  config.vocab_size = shape.vocabulary;
  config.hidden_size = shape.hidden;
  config.intermediate_size = shape.mlp;
  config.num_hidden_layers = shape.layers;
  config.num_attention_heads = shape.heads;
  config.num_key_value_heads = shape.kv_heads;
  config.head_dim = shape.hidden / shape.heads;
  config.max_position_embeddings = shape.context;
  config.sliding_window.assign(static_cast<size_t>(shape.layers), 0);
  return config;
}

/// A GPT-2 of that shape, tied, as its config.json would say.
inline ModelConfig gpt2_of(LlamaShape shape) {
  shape.kv_heads = shape.heads;
  ModelConfig config = llama_of(shape);
  config.architecture = "GPT2LMHeadModel";
  config.model_type = "gpt2";
  config.norm_eps = 1e-5;
  config.gelu = Gelu::kTanh;
  config.layer_norm = config.learned_positions = config.stores_transposed = true;
  config.small_residual_start = config.tie_word_embeddings = true;
  config.attention_bias = config.output_bias = config.mlp_bias = true;
  return config;
}

}  // namespace temper::trainer
