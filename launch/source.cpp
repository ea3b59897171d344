#include "launch/source.h"

#include <optional>
#include <system_error>
#include <vector>

#include <ATen/ATen.h>

#include "data/hub/repository.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/adapter_config.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/adapters.h"
#include "trainer/checkpoint/state.h"
#include "trainer/models/model.h"
#include "trainer/models/quantization.h"

namespace temper::launch {

namespace fs = std::filesystem;

namespace {

bool has(const fs::path& directory, const char* name) {
  std::error_code ignored;
  return fs::exists(directory / name, ignored);
}

// What a hub name means; anything else as it is.
fs::path in_cache(const fs::path& given) {
  const std::optional<data::HubName> name = data::hub_name(given.string());
  return name ? data::cached_snapshot(*name).value_or(given) : given;
}

bool is_model(const fs::path& path) { return has(path, "config.json"); }
bool is_adapter(const fs::path& path) { return has(path, "adapter_config.json"); }

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
  Source source{.kind = Source::Kind::kCheckpoint,
                .weights = checkpoint,
                .model = {},
                .state = {},
                .tokenizer = {}};
  source.state = data::read_json(checkpoint / "state.json");
  source.model = start_model(checkpoint, source.state);
  source.tokenizer = {
      .directory = source.model,
      .added_tokens = source.state.value("added_tokens", std::vector<std::string>())};
  const std::string own = source.state.value("tokenizer_directory", "");
  if (!own.empty() && has(own, "tokenizer.json")) source.tokenizer.directory = own;
  return source;
}

}  // namespace

Source model_source(const fs::path& model) {
  return {.kind = Source::Kind::kModel,
          .weights = model,
          .model = model,
          .state = {},
          .tokenizer = {.directory = model}};
}

namespace {

/// A reward model's checkpoint or adapter on a language model brings its own head.
trainer::ModelConfig with_own_head(const Source& source, trainer::ModelConfig config) {
  if (config.num_labels > 0) return config;
  const data::Tokenizer tokenizer = source.load_tokenizer();
  const auto with_head = [&](int64_t labels) {
    return trainer::with_score_head(config, labels,
                                    tokenizer.pad_id() ? tokenizer.pad_id() : tokenizer.eos_id());
  };
  if (source.kind == Source::Kind::kCheckpoint && source.state.contains("config")) {
    const data::Json& own = source.state.at("config");
    const data::Json names = own.value("architectures", data::Json::array());
    const bool scores = !names.empty() && names.front().is_string() &&
                        names.front().get<std::string>().ends_with("ForSequenceClassification");
    if (scores) return with_head(static_cast<int64_t>(own.at("id2label").size()));
  }
  if (source.kind == Source::Kind::kAdapter) {
    const data::Json own = data::read_json(source.weights / "adapter_config.json");
    if (own.is_object() && own.value("task_type", data::Json()) == data::Json("SEQ_CLS")) return with_head(1);
  }
  return config;
}

}  // namespace

data::Tokenizer Source::load_tokenizer() const {
  return data::Tokenizer::load(tokenizer.directory, tokenizer.added_tokens);
}

trainer::ModelConfig Source::load_config() const {
  trainer::ModelConfig config = with_own_head(*this, trainer::load_config(model));
  if (tokenizer.directory == model && tokenizer.added_tokens.empty()) return config;
  return trainer::with_tokens(std::move(config), load_tokenizer().size());
}

Source adapter_source(const fs::path& adapter, const fs::path& base) {
  if (!is_adapter(adapter))
    throw UserError(adapter.string() + ": no adapter (it has no adapter_config.json)");
  const fs::path named = in_cache(base.empty() ? fs::path(trainer::adapter_base(adapter)) : base);
  if (named.empty() || !is_model(named)) {
    throw UserError(adapter.string() + ": its base model \"" + named.string() +
                    "\" is no model directory here (no config.json): give it with --base DIR "
                    "(export) or as MODEL --adapter DIR (generate)");
  }
  return {.kind = Source::Kind::kAdapter,
          .weights = adapter,
          .model = named,
          .state = {},
          .tokenizer = {.directory = trainer::tokenizer_of(adapter, named)}};
}

bool is_checkpoint(const fs::path& path) {
  return has(path, "manifest.json") && has(path, "state.json");
}

bool is_run(const fs::path& path) {
  return has(path, "recipe.toml") && (has(path, "checkpoints") || has(path, "export"));
}

Source resolve_source(const fs::path& given, RunMeans run_means) {
  const fs::path path = in_cache(given);
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    throw UserError(
        path.string() + ": " +
        (fs::exists(path, ignored) ? "not a directory" : "no such directory") +
        "; give a model directory (config.json) or a name in the hub's cache, a run directory or a "
        "checkpoint directory");
  }
  if (is_checkpoint(path)) {
    const std::string damage = trainer::checkpoint_damage(path);
    if (!damage.empty()) throw UserError("damaged checkpoint: " + damage);
    return checkpoint_source(path);
  }
  if (is_model(path)) return model_source(path);
  if (has(path, "adapter_config.json")) {
    return adapter_source(path, {});
  }
  if (is_run(path)) {
    if (run_means == RunMeans::kExport && is_model(path / "export")) {
      return model_source(path / "export");
    }
    if (run_means == RunMeans::kExport && is_adapter(path / "export"))
      return adapter_source(path / "export", {});
    if (const auto found = trainer::find_checkpoint(path / "checkpoints")) {
      return checkpoint_source(found->directory);
    }
    throw UserError(path.string() + ": a run without a complete checkpoint yet");
  }
  throw UserError(path.string() +
                  ": neither a model (config.json), a run (recipe.toml and checkpoints/) nor a "
                  "checkpoint (manifest.json)");
}

trainer::TokenizerFiles tokenizer_files(const fs::path& given) {
  const fs::path path = in_cache(given);
  if (has(path, "tokenizer.json")) return {.directory = path};
  if (is_run(path) || is_checkpoint(path)) return resolve_source(path, RunMeans::kExport).tokenizer;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    throw UserError(path.string() + ": no such directory; give one that holds tokenizer.json");
  }
  return {.directory = path};  // Tokenizer::load says what is missing there.
}

namespace {

/// The adapters of a checkpoint's run as they were before its first step.
std::unique_ptr<trainer::Adapters> started_adapters(const Source& source, trainer::Model& model,
                                                    const trainer::ModelOptions& options) {
  const fs::path from = source.state.at("adapter_start").get<std::string>();
  if (!from.empty()) return trainer::load_adapter(from, model, options);
  recipes::Peft peft =
      trainer::peft_of_config(source.state.at("adapter"), source.weights / "state.json");
  const std::string dtype = source.state.at("adapter_dtype");
  if (dtype == c10::toString(at::kBFloat16)) peft.dtype = recipes::Dtype::kBf16;
  if (dtype == c10::toString(at::kHalf)) peft.dtype = recipes::Dtype::kFp16;
  auto adapters = std::make_unique<trainer::Adapters>(peft, model, options);
  adapters->initialize(source.state.at("adapter_seed").get<int64_t>());
  return adapters;
}

}  // namespace

LoadedModel load_model(const Source& source, trainer::ModelOptions options) {
  const bool has_adapter =
      source.kind == Source::Kind::kAdapter ||
      (source.kind == Source::Kind::kCheckpoint && source.state.contains("adapter"));
  const trainer::ModelConfig config = source.load_config();
  options.quantize =
      trainer::stored_quantization(config.json, (source.model / "config.json").string());
  options.frozen = has_adapter || options.quantize;
  LoadedModel loaded;
  loaded.model = trainer::build_model(config, options);
  trainer::Model& model = *loaded.model;
  const bool drawn =
      has_adapter && source.kind == Source::Kind::kCheckpoint && source.state.at("base_drawn");
  if (drawn) {
    trainer::draw_weights(model, options, source.state.at("adapter_seed").get<int64_t>());
  } else if (source.kind == Source::Kind::kModel || has_adapter) {
    trainer::load_weights(model, options,
                          source.kind == Source::Kind::kModel ? source.weights : source.model);
  }
  if (source.kind == Source::Kind::kModel) return loaded;
  if (source.kind == Source::Kind::kAdapter) {
    loaded.adapters = trainer::load_adapter(
        source.weights, model, options, [&](const std::string& name) {
          return trainer::stored_tensor(source.model, name, config);
        });
    return loaded;
  }
  if (has_adapter) {
    loaded.adapters = started_adapters(source, model, options);
  }
  trainer::NamedTensors masters;
  for (const auto& parameter : model.parameters()) {
    if (!has_adapter || parameter.trainable())
      masters.emplace_back("weights/" + parameter.name, parameter.master);
  }
  const trainer::NamedTensors start =
      has_adapter ? loaded.adapters->start() : trainer::NamedTensors();
  for (const auto& [name, tensor] : start) masters.emplace_back("start/" + name, tensor);
  trainer::load_checkpoint(source.weights, masters);
  trainer::refresh_values(model);
  if (!start.empty() && !drawn) {
    loaded.adapters->change_base_again([&](const std::string& name) {
      return trainer::stored_tensor(source.model, name, config);
    });
  }
  return loaded;
}

}  // namespace temper::launch
