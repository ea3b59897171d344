#include "trainer/models/registry.h"

#include <string_view>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

constexpr Architecture kArchitectures[] = {
    {"LlamaForCausalLM", "llama", build_llama, "Llama 1 to 3.x and the many that share its shape.",
     "arXiv:2407.21783", 0, 0, 2048},
    {"MistralForCausalLM", "mistral", build_llama, "Llama with a sliding window over all layers.",
     "arXiv:2310.06825", 8, 0, 131072},
    {"Qwen2ForCausalLM", "qwen2", build_llama, "Llama with biases on queries, keys and values.",
     "arXiv:2407.10671", 32, 0, 32768},
    {"Qwen3ForCausalLM", "qwen3", build_llama, "Llama with RMSNorm of queries and keys.",
     "arXiv:2505.09388", 32, 128, 32768},
};

}  // namespace

std::span<const Architecture> architectures() { return kArchitectures; }

const Architecture* find_architecture(const std::string& name, const std::string& model_type) {
  constexpr std::string_view kScores = "ForSequenceClassification";
  const std::string language_model =
      name.ends_with(kScores) ? name.substr(0, name.size() - kScores.size()) + "ForCausalLM" : name;
  for (const Architecture& row : kArchitectures) {
    if (name.empty() ? model_type == row.model_type : language_model == row.name) return &row;
  }
  return nullptr;
}

std::unique_ptr<Model> build_model(const ModelConfig& config, const ModelOptions& options) {
  const Architecture* row = find_architecture(config.architecture, config.model_type);
  TEMPER_CHECK(row != nullptr, "load_config lets only registered architectures through");
  return row->build(config, options);
}

}  // namespace temper::trainer
