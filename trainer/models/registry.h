#pragma once

#include <memory>
#include <span>

#include "trainer/models/decoder_names.h"
#include "trainer/models/model.h"

namespace temper::trainer {

class ConfigReader;

/// One architecture: found by config.json's `architectures` or, failing that, `model_type`. A new
/// one is a row here, a function that reads its config.json and a table of its tensors' names; what
/// the decoder (decoder.cpp) computes is said by fields of ModelConfig.
struct Architecture {
  const char* name;        // "LlamaForCausalLM"
  const char* classifier;  // "LlamaForSequenceClassification"
  const char* model_type;  // "llama"
  /// Everything of `config` that only this architecture knows; what is wrong goes to `top`.
  void (*read)(const Architecture& row, const ConfigReader& top, ModelConfig& config);
  const DecoderNames* names;
  const char* sentence;
  const char* paper;
  // What transformers takes where config.json is silent.
  int64_t default_kv_heads;   // 0: as many as attention heads
  int64_t default_head_dim;   // 0: hidden_size / num_attention_heads
  int64_t default_positions;  // max_position_embeddings
};

std::span<const Architecture> architectures();
/// Null when there is none of that name or model type. A classifier ("LlamaForSequenceClassification") is found as the language
/// model it is made of.
const Architecture* find_architecture(const std::string& name, const std::string& model_type);

void read_llama(const Architecture& row, const ConfigReader& top,
                ModelConfig& config);  // llama_config.cpp
void read_gpt2(const Architecture& row, const ConfigReader& top,
               ModelConfig& config);  // gpt2_config.cpp

std::unique_ptr<Model> build_decoder(const ModelConfig& config, const DecoderNames& names,
                                     const ModelOptions& options);  // decoder.cpp

}  // namespace temper::trainer
