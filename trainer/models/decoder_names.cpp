#include "trainer/models/decoder_names.h"

#include <ATen/core/Tensor.h>

#include "trainer/models/config.h"

namespace temper::trainer {

const DecoderNames kLlamaNames = {
    .embedding = "model.embed_tokens",
    .positions = "",
    .blocks = "model.layers",
    .attention_norm = "input_layernorm",
    .queries_keys_values = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"},
    .attention_output = "self_attn.o_proj",
    .mlp_norm = "post_attention_layernorm",
    .mlp_input = {"mlp.gate_proj", "mlp.up_proj"},
    .mlp_output = "mlp.down_proj",
    .final_norm = "model.norm",
    .optional_prefix = ""};

const DecoderNames kGpt2Names = {.embedding = "transformer.wte",
                                 .positions = "transformer.wpe",
                                 .blocks = "transformer.h",
                                 .attention_norm = "ln_1",
                                 .queries_keys_values = {"attn.c_attn", "", ""},
                                 .attention_output = "attn.c_proj",
                                 .mlp_norm = "ln_2",
                                 .mlp_input = {"mlp.c_fc", ""},
                                 .mlp_output = "mlp.c_proj",
                                 .final_norm = "transformer.ln_f",
                                 .optional_prefix = "transformer."};

bool is_norm(const std::string& module, const ModelConfig& config) {
  const DecoderNames& names = names_of(config);
  if (module == names.final_norm) return true;
  if (!module.starts_with(std::string(names.blocks) + ".")) return false;
  const std::string last = module.substr(module.rfind('.') + 1);
  return last == names.attention_norm || last == names.mlp_norm || last == "q_norm" ||
         last == "k_norm";
}

bool is_stored_transposed(const std::string& name, const ModelConfig& config) {
  constexpr const char* kWeight = ".weight";
  if (!config.stores_transposed || !name.ends_with(kWeight)) return false;
  const bool in_block = name.starts_with(std::string(names_of(config).blocks) + ".");
  return in_block && !is_norm(name.substr(0, name.rfind('.')), config);
}

at::Tensor in_stored_order(const at::Tensor& tensor, const std::string& name,
                           const ModelConfig& config) {
  return is_stored_transposed(name, config) ? tensor.t() : tensor;
}

NamedTensors as_stored(NamedTensors weights, const ModelConfig& config) {
  for (auto& [name, tensor] : weights) tensor = in_stored_order(tensor, name, config).contiguous();
  return weights;
}

}  // namespace temper::trainer
