#include "trainer/model_card.h"

#include <optional>

#include "data/hub/repository.h"
#include "recipes/resolve.h"
#include "trainer/run.h"

namespace temper::trainer {

std::string model_card(const Run& run, int64_t steps) {
  const recipes::Recipe& recipe = run.recipe;
  const bool drawn = recipe.model.init == recipes::Init::kRandom;
  std::string card = "---\nlibrary_name: transformers\npipeline_tag: ";
  card += run.inputs.config.num_labels > 0 ? "text-classification\n" : "text-generation\n";
  const std::optional<data::HubName> hub = data::hub_name(recipe.model.path);
  if (!drawn) card += "base_model: " + (hub ? hub->repository : recipe.model.path) + "\n";
  card += "tags:\n- temper\n- " + recipe.objective.kind + "\n---\n\n# " + recipe.run.name + "\n\n";
  card += run.inputs.config.architecture + (drawn ? ", trained from random weights" : ", fine-tuned from `" + recipe.model.path + "`");
  card += " with the objective `" + recipe.objective.kind + "` for " + std::to_string(steps) + " steps of " +
          std::to_string(recipe.batch.global) + " sequences.\n\n";
  const std::string loader = run.inputs.config.num_labels > 0 ? "AutoModelForSequenceClassification" : "AutoModelForCausalLM";
  card += "```python\nfrom transformers import " + loader + ", AutoTokenizer\n\n"
          "model = " + loader + ".from_pretrained(\"PATH\")\n"
          "tokenizer = AutoTokenizer.from_pretrained(\"PATH\")\n```\n\n";
  card += "## Recipe\n\n```toml\n" + recipes::to_toml(recipe) + "```\n";
  return card;
}

}  // namespace temper::trainer
