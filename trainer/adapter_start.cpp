#include "trainer/adapter_start.h"

#include <algorithm>
#include <utility>

#include "data/io/json.h"
#include "trainer/adapters/adapter_config.h"
#include "trainer/adapters/eva.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/run.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;

recipes::Peft peft_of_checkpoint(const fs::path& checkpoint, const recipes::Peft& recipes_own) {
  const fs::path state = checkpoint / kStateFile;
  recipes::Peft peft = peft_of_config(data::read_json(state).at("adapter"), state);
  peft.dtype = recipes_own.dtype;
  return peft;
}

// The micro-batches of all ranks in the order of training, whichever rank this is.
NextBatch training_batches(const Run& run) {
  data::LoaderOptions options = run.loader_options;
  options.rank = 0;
  options.ranks = 1;
  const auto loader = std::make_shared<data::DataLoader>(run.datasets.train, options);
  return [loader, step = int64_t{0}, batches = data::StepBatches(), next = size_t{0}]() mutable {
    while (next == batches.micro_batches.size()) {
      batches = loader->step(step++);
      next = 0;
    }
    return std::move(batches.micro_batches[next++]);
  };
}

EvaStart eva_start(Run& run, recipes::Peft peft) {
  set_default_targets(peft, run.inputs.config.model_type);
  EvaStart start = find_eva_start(peft, *run.model, training_batches(run));
  int64_t least = run.inputs.config.hidden_size, most = 0;
  for (const auto& [module, a] : start.a) {
    least = std::min(least, a.size(0));
    most = std::max(most, a.size(0));
  }
  run.datasets.statements.push_back(
      "eva: the inputs' directions settled after " + std::to_string(start.batches) +
      " batches; ranks " + std::to_string(least) + " to " + std::to_string(most) + " on " +
      std::to_string(start.a.size()) + " modules");
  return start;
}

}  // namespace

StoredBase stored_base(const Run& run) {
  if (run.recipe.model.init == recipes::Init::kRandom) return {};
  return [&](const std::string& name) {
    return stored_tensor(run.inputs.model_directory, name, run.inputs.config);
  };
}

std::unique_ptr<Adapters> start_adapters(Run& run, const ModelOptions& options,
                                         const std::optional<fs::path>& checkpoint) {
  EvaStart start;
  start.peft = run.recipe.peft;
  const StoredBase stored = stored_base(run);
  if (stored) check_base_of_start(start.peft, run.inputs.config, options.weights);
  if (starts_in_data(start.peft)) {
    if (checkpoint) {
      start.peft = peft_of_checkpoint(*checkpoint, start.peft);
    } else if (run.datasets.train) {
      start = eva_start(run, start.peft);
    }
  }
  auto adapters = std::make_unique<Adapters>(start.peft, *run.model, options);
  const std::string text = start.peft.prompt_tuning_init_text.value_or("");
  adapters->initialize(run.recipe.run.seed, run.inputs.tokenizer.encode(text), stored);
  adapters->start_from(start.a);
  return adapters;
}

}  // namespace temper::trainer
