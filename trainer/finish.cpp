#include "trainer/finish.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>

#include "parallel/log.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/checkpoint/export.h"
#include "trainer/checkpoints.h"
#include "trainer/model_card.h"
#include "trainer/models/decoder_names.h"
#include "trainer/models/value_head.h"
#include "trainer/recorder.h"

namespace temper::trainer {

std::string export_dtype(const recipes::Recipe& recipe, const ModelConfig& config) {
  if (recipe.export_.dtype != "auto") return recipe.export_.dtype;
  if (recipe.model.init == recipes::Init::kPretrained) {
    if (config.stored_dtype == "float32") return "fp32";
    if (config.stored_dtype == "bfloat16") return "bf16";
    if (config.stored_dtype == "float16") return "fp16";
  }
  switch (recipe.model.dtype) {
    case recipes::Dtype::kFp32:
      return "fp32";
    case recipes::Dtype::kBf16:
      return "bf16";
    case recipes::Dtype::kFp16:
      return "fp16";
  }
  return "fp32";
}

namespace {

// Of the model that adapters sit on, as it is stored; one that was drawn is nowhere but in memory.
at::Tensor base_tensor(Run& run, const std::string& name) {
  if (run.recipe.model.init == recipes::Init::kPretrained) return stored_tensor(run.inputs.model_directory, name, run.inputs.config);
  const std::vector<Parameter>& parameters = run.model->parameters();
  const auto found = std::find_if(parameters.begin(), parameters.end(), [&](const Parameter& p) { return p.name == name; });
  TEMPER_CHECK(found != parameters.end(), "no such parameter: " + name);
  return found->value;
}

// That of an adapter which is not its base's.
std::optional<TokenizerFiles> own_tokenizer(const Inputs& inputs) {
  const bool of_base = inputs.tokenizer_files.directory == inputs.model_directory && inputs.tokenizer.added_ids().empty();
  return of_base ? std::nullopt : std::optional(inputs.tokenizer_files);
}

NamedTensors exported_weights(Run& run, at::ScalarType dtype) {
  if (run.adapters) {
    const auto base = [&](const std::string& name) { return base_tensor(run, name); };
    return merged_weights(*run.model, *run.adapters, base, dtype);
  }
  NamedTensors weights;
  for (const Parameter& parameter : run.model->parameters()) {
    // A sharded run has given up whole masters.
    if (!of_value_head(parameter)) weights.emplace_back(parameter.name, parameter.master.defined() ? parameter.master : parameter.value);
  }
  return weights;
}

// The masters that a sharded run has given up: every rank has written its pieces of them into the last checkpoint.
// What is merged with adapters is whole: no base is in checkpoints.
NamedTensors with_masters(const Run& run, const Checkpoints& checkpoints, NamedTensors weights) {
  if (run.adapters) return weights;
  std::set<std::string> given_up;
  for (const Parameter& parameter : run.model->parameters()) {
    if (!parameter.master.defined()) given_up.insert(parameter.name);
  }
  NamedTensors missing;
  for (const auto& named : weights) {
    if (given_up.contains(named.first)) missing.push_back(named);
  }
  if (missing.empty()) return weights;
  const NamedTensors masters = checkpoints.weights(missing);
  auto next = masters.begin();
  for (auto& [name, tensor] : weights) {
    if (given_up.contains(name)) tensor = (next++)->second;
  }
  return weights;
}

void export_run(Run& run, const RunDirectory& directory, const Checkpoints& checkpoints, int64_t step) {
  const std::string card = model_card(run, step);
  const bool adapter = run.adapters && !run.recipe.export_.merge;
  // A resumed run may merge what it exported as an adapter before, or the other way round.
  if (std::filesystem::exists(directory.export_directory() / (adapter ? "config.json" : "adapter_config.json"))) {
    std::filesystem::remove_all(directory.export_directory());
  }
  if (adapter) {
    const NamedTensors tensors =
        saved_tensors(*run.adapters, adapter_dtype(run.adapters->peft()), [&](const std::string& name) { return base_tensor(run, name); });
    write_adapter(directory.export_directory(), adapter_config(*run.adapters, run.recipe.model.path), tensors, card,
                  own_tokenizer(run.inputs));
    return;
  }
  const std::string dtype = export_dtype(run.recipe, run.inputs.config);
  export_model({.tensors = exported_weights(run, stored_type(dtype)),
                .read = [&](const NamedTensors& of_file) { return as_stored(with_masters(run, checkpoints, of_file), run.inputs.config); },
                .config = run.inputs.config.json,
                .tokenizer = run.inputs.tokenizer_files,
                .model_directory = run.inputs.model_directory,
                .model_card = card},
               directory.export_directory(), dtype, parse_size(run.recipe.export_.max_shard_size));
}

}  // namespace

Outcome finish(Run& run, RunDirectory& directory, Checkpoints& checkpoints, Recorder& recorder, int64_t step) {
  checkpoints.begin(step);
  if (const std::string problem = checkpoints.complete(); !problem.empty()) return {Ending::kFailed, problem};

  // A base that was drawn is nowhere but in memory.
  const WholeBlocks whole(run.adapters && run.recipe.model.init == recipes::Init::kRandom ? run.blocks.get() : nullptr);
  StepSums sums;
  std::string problem;
  if (run.world.rank == 0) {
    try {
      export_run(run, directory, checkpoints, step);
      recorder.report();
    } catch (const RunError& error) {
      problem = error.what();
      sums.failed = 1;
    }
  }
  // The others wait for the export, so that no rank reports success before it is there.
  exchange(sums, *run.communicator);
  if (sums.failed > 0) return {Ending::kFailed, problem.empty() ? "stopped: the export failed on rank 0" : problem};
  parallel::say("exported to " + directory.export_directory().string());
  return {};
}

}  // namespace temper::trainer
