#include "trainer/finish.h"

#include <ATen/ATen.h>

#include "parallel/log.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/checkpoint/export.h"
#include "trainer/checkpoints.h"
#include "trainer/model_card.h"
#include "trainer/recorder.h"

namespace temper::trainer {

std::string export_dtype(const recipes::Recipe& recipe, const ModelConfig& config) {
  if (recipe.export_.dtype != "auto") return recipe.export_.dtype;
  if (recipe.model.init == recipes::Init::kPretrained) {
    if (config.stored_dtype == "float32") return "fp32";
    if (config.stored_dtype == "bfloat16") return "bf16";
    if (config.stored_dtype == "float16") return "fp16";
  }
  return recipe.model.dtype == recipes::Dtype::kFp32 ? "fp32" : "bf16";
}

namespace {

NamedTensors exported_weights(Run& run, at::ScalarType dtype) {
  if (run.adapters) {
    if (run.recipe.model.init == recipes::Init::kRandom) {
      throw UserError("export.merge: a base that was drawn (model.init = \"random\") is nowhere to merge into");
    }
    const auto base = [&](const std::string& name) { return stored_tensor(run.inputs.model_directory, name); };
    return merged_weights(*run.model, *run.adapters, base, dtype);
  }
  NamedTensors weights;
  for (const Parameter& parameter : run.model->parameters()) weights.emplace_back(parameter.name, parameter.master);
  return weights;
}

void export_run(Run& run, const RunDirectory& directory, int64_t step) {
  const std::string card = model_card(run, step);
  if (run.adapters && !run.recipe.export_.merge) {
    NamedTensors tensors;
    for (const auto& [key, tensor] : run.adapters->plain().second) {
      tensors.emplace_back(key, tensor.to(adapter_dtype(run.adapters->peft())).contiguous());
    }
    write_adapter(directory.export_directory(), adapter_config(*run.adapters, run.recipe.model.path), tensors, card);
    return;
  }
  const std::string dtype = export_dtype(run.recipe, run.inputs.config);
  export_model({.tensors = exported_weights(run, stored_type(dtype)),
                .config = run.inputs.config.json,
                .model_directory = run.inputs.model_directory,
                .model_card = card},
               directory.export_directory(), dtype, parse_size(run.recipe.export_.max_shard_size));
}

}  // namespace

Outcome finish(Run& run, RunDirectory& directory, Checkpoints& checkpoints, Recorder& recorder, int64_t step) {
  checkpoints.begin(step);
  if (const std::string problem = checkpoints.complete(); !problem.empty()) return {Ending::kFailed, problem};

  StepSums sums;
  std::string problem;
  if (run.world.rank == 0) {
    try {
      export_run(run, directory, step);
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
