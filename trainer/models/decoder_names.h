#pragma once

#include <array>
#include <string>

#include "trainer/checkpoint/safetensors.h"

namespace temper::trainer {

struct ModelConfig;

/// What the modules of a decoder are called, in safetensors and by PEFT; ".weight" and ".bias"
/// follow. Those of a block stand behind "<blocks>.<its number>.". Linear layers that read the same
/// input are one list; an empty name: there is none.
struct DecoderNames {
  const char* embedding;                          // "model.embed_tokens"
  const char* positions;                          // learned ones, added to the embedding
  const char* blocks;                             // "model.layers"
  const char* attention_norm;                     // "input_layernorm"
  std::array<const char*, 3> queries_keys_values;  // or one layer for them all
  const char* attention_output;                   // "self_attn.o_proj"
  const char* mlp_norm;                           // "post_attention_layernorm"
  std::array<const char*, 2> mlp_input;           // gate and up, or one layer without a gate
  const char* mlp_output;                         // "mlp.down_proj"
  const char* final_norm;                         // "model.norm"
  const char* optional_prefix;                    // what files may leave out in front of a name
};

extern const DecoderNames kLlamaNames;
extern const DecoderNames kGpt2Names;

const DecoderNames& names_of(const ModelConfig& config);  // registry.cpp

/// Whether files hold the matrix of this name as [in, out] (Conv1D of transformers) and not, as
/// models do, [out, in]: GPT-2's linear layers. (Quantised ones lie as all others.)
bool is_stored_transposed(const std::string& name, const ModelConfig& config);

/// A model's tensor as files hold it, or the other way round: transposed or as it is, no copy.
at::Tensor in_stored_order(const at::Tensor& tensor, const std::string& name,
                           const ModelConfig& config);

/// A model's weights as its files hold them.
NamedTensors as_stored(NamedTensors weights, const ModelConfig& config);

/// Whether `module` is one of the model's norms, whose weights are not drawn and do not decay.
bool is_norm(const std::string& module, const ModelConfig& config);

}  // namespace temper::trainer
