#include "launch/source.h"

#include <system_error>
#include <vector>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/checkpoint/state.h"
#include "trainer/models/model.h"

namespace temper::launch {

namespace fs = std::filesystem;

namespace {

bool has(const fs::path& directory, const char* name) {
  std::error_code ignored;
  return fs::exists(directory / name, ignored);
}

bool is_model(const fs::path& path) { return has(path, "config.json"); }

/// The model directory that a checkpoint's run started from; where that is gone, the run's export.
fs::path start_model(const fs::path& checkpoint, const data::Json& state) {
  const auto recorded = state.find("model_directory");
  const fs::path start = recorded != state.end() && recorded->is_string()
                             ? recorded->get<std::string>()
                             : std::string();
  if (!start.empty() && is_model(start)) return start;
  const fs::path exported =
      fs::absolute(checkpoint).lexically_normal().parent_path().parent_path() / "export";
  if (is_model(exported)) return exported;
  throw UserError(checkpoint.string() + ": its run started from model.path = \"" + start.string() +
                  "\", where there is no config.json: run this command from the directory that the "
                  "run was started in");
}

Source checkpoint_source(const fs::path& checkpoint) {
  Source source{.kind = Source::Kind::kCheckpoint, .weights = checkpoint, .model = {}, .state = {}};
  source.state = data::read_json(checkpoint / "state.json");
  source.model = start_model(checkpoint, source.state);
  return source;
}

}  // namespace

bool is_checkpoint(const fs::path& path) {
  return has(path, "manifest.json") && has(path, "state.json");
}

bool is_run(const fs::path& path) {
  return has(path, "recipe.toml") && (has(path, "checkpoints") || has(path, "export"));
}

Source resolve_source(const fs::path& path, RunMeans run_means) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    throw UserError(
        path.string() + ": " +
        (fs::exists(path, ignored) ? "not a directory" : "no such directory") +
        "; give a model directory (config.json), a run directory or a checkpoint directory");
  }
  if (is_checkpoint(path)) {
    const std::string damage = trainer::checkpoint_damage(path);
    if (!damage.empty()) throw UserError("damaged checkpoint: " + damage);
    return checkpoint_source(path);
  }
  if (is_model(path))
    return {.kind = Source::Kind::kModel, .weights = path, .model = path, .state = {}};
  if (has(path, "adapter_config.json")) {
    throw UserError(
        path.string() +
        ": an adapter; adapters are not in this version of temper: give a model, run or "
        "checkpoint directory");
  }
  if (is_run(path)) {
    if (run_means == RunMeans::kExport && is_model(path / "export")) {
      return {.kind = Source::Kind::kModel,
              .weights = path / "export",
              .model = path / "export",
              .state = {}};
    }
    if (const auto found = trainer::find_checkpoint(path / "checkpoints")) {
      return checkpoint_source(found->directory);
    }
    throw UserError(path.string() + ": a run without a complete checkpoint yet");
  }
  throw UserError(path.string() +
                  ": neither a model (config.json), a run (recipe.toml and checkpoints/) nor a "
                  "checkpoint (manifest.json)");
}

fs::path tokenizer_directory(const fs::path& path) {
  if (has(path, "tokenizer.json")) return path;
  if (is_run(path) || is_checkpoint(path)) return resolve_source(path, RunMeans::kExport).model;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    throw UserError(path.string() + ": no such directory; give one that holds tokenizer.json");
  }
  return path;  // Tokenizer::load says what is missing there.
}

std::unique_ptr<trainer::Model> load_model(const Source& source,
                                           const trainer::ModelOptions& options) {
  auto model = trainer::build_model(trainer::load_config(source.model), options);
  if (source.kind == Source::Kind::kModel) {
    trainer::load_weights(*model, options, source.weights);
    return model;
  }
  trainer::NamedTensors masters;
  for (const auto& parameter : model->parameters())
    masters.emplace_back("weights/" + parameter.name, parameter.master);
  trainer::load_checkpoint(source.weights, masters);
  trainer::refresh_values(*model, options);
  return model;
}

}  // namespace temper::launch
