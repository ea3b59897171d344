#pragma once

#include <memory>
#include <span>

#include "trainer/models/model.h"

namespace temper::trainer {

/// One architecture: found by config.json's `architectures` or, failing that, `model_type`. A new
/// one is a row here and the file with its builder; where it differs from a decoder that is there,
/// a row and a field of ModelConfig may be all.
struct Architecture {
  const char* name;        // "LlamaForCausalLM"
  const char* model_type;  // "llama"
  std::unique_ptr<Model> (*build)(const ModelConfig& config, const ModelOptions& options);
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

std::unique_ptr<Model> build_llama(const ModelConfig& config,
                                   const ModelOptions& options);  // llama.cpp

}  // namespace temper::trainer
