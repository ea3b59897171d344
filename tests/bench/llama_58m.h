#pragma once

#include "trainer/models/config.h"

namespace temper::trainer {

/// The shape that programs here measure: a Llama of 58 million parameters.
inline ModelConfig llama_58m() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.model_type = "llama";
  config.vocab_size = 32000;
  config.hidden_size = 512;
  config.intermediate_size = 1536;
  config.num_hidden_layers = 8;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  config.head_dim = 64;
  config.max_position_embeddings = 512;
  config.sliding_window.assign(8, 0);
  return config;
}

}  // namespace temper::trainer
