#pragma once

#include "trainer/models/config.h"

namespace temper::trainer {

/// A decoder of two layers with 20 tokens, and fewer keys than queries.
inline ModelConfig tiny_llama() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.model_type = "llama";
  config.vocab_size = 20;
  config.hidden_size = 16;
  config.intermediate_size = 24;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 4;
  config.max_position_embeddings = 64;
  config.sliding_window = {0, 0};
  return config;
}

}  // namespace temper::trainer
