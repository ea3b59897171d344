#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/io/json.h"

/// What a user means by MODEL or SOURCE on the command line: a model directory, a run directory or
/// a checkpoint directory.
namespace temper::trainer {
class Adapters;
class Model;
struct ModelOptions;
}  // namespace temper::trainer

namespace temper::launch {

struct Source {
  enum class Kind { kModel, kCheckpoint, kAdapter };
  Kind kind = Kind::kModel;
  std::filesystem::path weights;  // the model directory, the checkpoint, or the adapter
  std::filesystem::path model;    // config.json, tokenizer, template, generation_config.json
  data::Json state;               // of a checkpoint: its state.json; else null
};

enum class RunMeans {
  kExport,
  kCheckpoint
};  // which of a run is taken: its export when there is one, or always the checkpoint

/// Throws UserError when `path` is none of these, or is a run without a complete checkpoint.
Source resolve_source(const std::filesystem::path& path, RunMeans run_means);

/// The directory whose tokenizer files belong to `path`: itself when it holds tokenizer.json, else
/// that of the source.
std::filesystem::path tokenizer_directory(const std::filesystem::path& path);

bool is_checkpoint(const std::filesystem::path& path);  // holds manifest.json and state.json
bool is_run(const std::filesystem::path& path);  // holds recipe.toml and checkpoints/ or export/

struct LoadedModel {
  std::unique_ptr<trainer::Model> model;
  std::unique_ptr<trainer::Adapters> adapters;  // null for a plain model
};

/// Builds the model of `source` and reads its weights, those of its adapters too. Throws UserError
/// as load_config, load_weights, load_adapter and read_checkpoint do.
LoadedModel load_model(const Source& source, trainer::ModelOptions options);

/// The adapter directory `adapter` on the base that it names, or on `base` where that is given.
Source adapter_source(const std::filesystem::path& adapter, const std::filesystem::path& base);

}  // namespace temper::launch
