#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "data/io/json.h"
#include "data/text/tokenizer.h"
#include "trainer/checkpoint/export.h"
#include "trainer/models/config.h"

/// What a user means by MODEL or SOURCE on the command line: a model directory or its name in the
/// hub's cache, a run directory or a checkpoint directory.
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
  std::filesystem::path model;    // config.json, generation_config.json
  data::Json state;               // of a checkpoint: its state.json; else null
  trainer::TokenizerFiles tokenizer;  // and chat template

  data::Tokenizer load_tokenizer() const;
  /// With rows for the tokens that its tokenizer adds. Throws UserError.
  trainer::ModelConfig load_config() const;
};

enum class RunMeans {
  kExport,
  kCheckpoint
};  // which of a run is taken: its export when there is one, or always the checkpoint

/// Throws UserError when `path` is none of these, or is a run without a complete checkpoint.
Source resolve_source(const std::filesystem::path& given, RunMeans run_means);

/// The tokenizer files that belong to `path`: its own when it holds tokenizer.json, else those of
/// the source.
trainer::TokenizerFiles tokenizer_files(const std::filesystem::path& given);

bool is_checkpoint(const std::filesystem::path& path);  // holds manifest.json and state.json
bool is_run(const std::filesystem::path& path);  // holds recipe.toml and checkpoints/ or export/

struct LoadedModel {
  std::unique_ptr<trainer::Model> model;
  std::unique_ptr<trainer::Adapters> adapters;  // null for a plain model
};

/// Builds the model of `source` and reads its weights, those of its adapters too. Throws UserError
/// as load_config, load_weights, load_adapter and read_checkpoint do.
LoadedModel load_model(const Source& source, trainer::ModelOptions options);

Source model_source(const std::filesystem::path& model);

/// The adapter directory `adapter` on the base that it names, or on `base` where that is given.
Source adapter_source(const std::filesystem::path& adapter, const std::filesystem::path& base);

}  // namespace temper::launch
