#include "trainer/finish.h"

#include "parallel/log.h"
#include "recipes/diagnostic.h"
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

Outcome finish(Run& run, RunDirectory& directory, Checkpoints& checkpoints, Recorder& recorder, int64_t step) {
  checkpoints.begin(step);
  if (const std::string problem = checkpoints.complete(); !problem.empty()) return {Ending::kFailed, problem};

  StepSums sums;
  std::string problem;
  if (run.world.rank == 0) {
    try {
      ExportSource source{.tensors = {},
                          .config = run.inputs.config.json,
                          .model_directory = run.inputs.model_directory,
                          .model_card = model_card(run, step)};
      for (const Parameter& parameter : run.model->parameters()) source.tensors.emplace_back(parameter.name, parameter.master);
      export_model(source, directory.export_directory(), export_dtype(run.recipe, run.inputs.config), parse_size(run.recipe.export_.max_shard_size));
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
