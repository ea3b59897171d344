#include "trainer/models/registry.h"

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

constexpr Architecture kArchitectures[] = {
    {"LlamaForCausalLM", "LlamaForSequenceClassification", "llama", read_llama, &kLlamaNames,
     "Llama 1 to 3.x and the many that share its shape.", "arXiv:2407.21783", 0, 0, 2048},
    {"MistralForCausalLM", "MistralForSequenceClassification", "mistral", read_llama, &kLlamaNames,
     "Llama with a sliding window over all layers.", "arXiv:2310.06825", 8, 0, 131072},
    {"Qwen2ForCausalLM", "Qwen2ForSequenceClassification", "qwen2", read_llama, &kLlamaNames,
     "Llama with biases on queries, keys and values.", "arXiv:2407.10671", 32, 0, 32768},
    {"Qwen3ForCausalLM", "Qwen3ForSequenceClassification", "qwen3", read_llama, &kLlamaNames,
     "Llama with RMSNorm of queries and keys.", "arXiv:2505.09388", 32, 128, 32768},
    {"GPT2LMHeadModel", "GPT2ForSequenceClassification", "gpt2", read_gpt2, &kGpt2Names,
     "LayerNorm, learned positions, GELU; tied.", "Radford et al. 2019", 0, 0, 1024},
};

const Architecture& row_of(const ModelConfig& config) {
  const Architecture* row = find_architecture(config.architecture, config.model_type);
  TEMPER_CHECK(row != nullptr, "load_config lets only registered architectures through");
  return *row;
}

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

const Architecture* find_architecture(const std::string& name, const std::string& model_type) {
  for (const Architecture& row : kArchitectures) {
    if (name.empty() ? model_type == row.model_type : name == row.name || name == row.classifier)
      return &row;
  }
  return nullptr;
}

const DecoderNames& names_of(const ModelConfig& config) { return *row_of(config).names; }

std::unique_ptr<Model> build_model(const ModelConfig& config, const ModelOptions& options) {
  return build_decoder(config, *row_of(config).names, options);
}

}  // namespace temper::trainer
