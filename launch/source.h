#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/io/json.h"

/// What a user means by MODEL or SOURCE on the command line: a model directory, a run directory or
/// a checkpoint directory.
namespace temper::trainer {
class Model;
struct ModelOptions;
}  // namespace temper::trainer

namespace temper::launch {

struct Source {
  enum class Kind { kModel, kCheckpoint };
  Kind kind = Kind::kModel;
  std::filesystem::path weights;  // the model directory, or the checkpoint
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

/// Builds the model of `source` and reads its weights. Throws UserError as load_config,
/// load_weights and read_checkpoint do.
std::unique_ptr<trainer::Model> load_model(const Source& source,
                                           const trainer::ModelOptions& options);

}  // namespace temper::launch
