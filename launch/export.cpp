#include "trainer/checkpoint/export.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/loader/batch.h"
#include "launch/arguments.h"
#include "launch/combine.h"
#include "launch/command.h"
#include "launch/source.h"
#include "recipes/diagnostic.h"
#include "recipes/parse.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/adapters.h"
#include "trainer/finish.h"
#include "trainer/models/decoder_names.h"
#include "trainer/models/model.h"

namespace temper::launch {

namespace fs = std::filesystem;

namespace {

/// SOURCE with --base, where it is an adapter.
Source source_of(const po::variables_map& given) {
  const fs::path path = given["SOURCE"].as<std::string>();
  if (fs::exists(path / "adapter_config.json")) {
    return adapter_source(path, given.count("base") != 0 ? given["base"].as<std::string>() : "");
  }
  if (given.count("base") != 0) {
    throw UserError("temper export: --base: belongs to an adapter directory as SOURCE, and " +
                    path.string() + " is none");
  }
  return resolve_source(path, RunMeans::kCheckpoint);
}

/// Adapters by themselves, as their run would export them.
void export_adapter(const trainer::Adapters& adapters, const Source& source, const fs::path& out,
                    const std::string& dtype, const std::string& card) {
  const at::ScalarType type =
      dtype == "auto" ? trainer::adapter_dtype(adapters.peft()) : trainer::stored_type(dtype);
  const bool own =
      source.tokenizer.directory != source.model || !source.tokenizer.added_tokens.empty();
  const auto base = [&](const std::string& name) {
    return trainer::stored_tensor(source.model, name, adapters.model_config());
  };
  trainer::write_adapter(out, trainer::adapter_config(adapters, source.model.string()),
                         trainer::saved_tensors(adapters, type, base), card,
                         own ? std::optional(source.tokenizer) : std::nullopt);
}

/// SOURCE itself, or as the base of --adapter.
LoadedModel load(const po::variables_map& given, const Source& source) {
  if (given.count("adapter") == 0) {
    for (const char* option : {"combination", "density"}) {
      if (given.count(option) != 0) {
        throw UserError(std::string("temper export: --") + option +
                        ": needs --adapter DIR[=WEIGHT]");
      }
    }
    return load_model(source, {.compute = at::kFloat, .weights = at::kFloat});
  }
  if (source.kind != Source::Kind::kModel) {
    throw UserError(
        "temper export: --adapter: needs a model directory as SOURCE, their common base");
  }
  trainer::Combination combination{.type = "linear"};
  if (const auto type = one_of(given, "combination",
                               {"linear", "cat", "svd", "ties", "dare_linear", "dare_ties"})) {
    combination.type = *type;
  }
  if (given.count("density") != 0) combination.density = given["density"].as<double>();
  return combine_on(source, given["adapter"].as<std::vector<std::string>>(), combination);
}

/// The plain model's weights: those of the source, adapters folded in.
trainer::NamedTensors weights_of(const LoadedModel& loaded, const Source& source,
                                 at::ScalarType type) {
  if (loaded.adapters) {
    const auto base = [&](const std::string& name) {
      return trainer::stored_tensor(source.model, name, loaded.model->config());
    };
    return trainer::merged_weights(*loaded.model, *loaded.adapters, base, type);
  }
  trainer::NamedTensors tensors;
  for (const auto& parameter : loaded.model->parameters()) {
    tensors.emplace_back(parameter.name, parameter.master.detach());
  }
  for (const trainer::LinearSlot& slot : loaded.model->linears()) {
    if (slot.projection->quantized.empty()) continue;
    tensors.emplace_back(slot.module + ".weight",
                         slot.projection->part_weight(slot.part, at::kFloat));
  }
  return tensors;
}

/// Logits of the same few tokens, float32 [tokens, vocabulary].
at::Tensor probe_logits(trainer::Model& model) {
  const at::NoGradGuard off;
  const int64_t length = std::min<int64_t>(64, model.config().max_position_embeddings);
  data::Batch batch;
  batch.token_ids = (at::arange(length) * 7919 % model.config().vocab_size).unsqueeze(0);
  batch.positions = at::arange(length).unsqueeze(0);
  batch.document_ends = at::tensor({0, static_cast<int>(length)}, at::kInt);
  return trainer::head_logits(model.hidden(batch).view({length, -1}), model.head());
}

void check_format(const std::string& format) {
  if (format == "safetensors") return;
  throw UserError("temper export: --format " + format +
                  ": this version of temper writes safetensors only");
}

/// The card of the source's model goes on; a checkpoint of a model without one gets the few lines
/// that are known.
std::string model_card(const Source& source, const trainer::ModelConfig& config) {
  std::ifstream card(source.model / "README.md");
  if (card && source.kind == Source::Kind::kModel) {
    std::ostringstream text;
    text << card.rdbuf();
    return text.str();
  }
  std::string text = "# " + config.architecture + "\n\nExported by temper from " +
                     source.weights.lexically_normal().filename().string();
  if (source.kind == Source::Kind::kCheckpoint) {
    text += ", a checkpoint of a model that started from " + source.model.filename().string();
  }
  return text + ".\n";
}

/// As the run would export its checkpoint, so that both give the same bytes; a model as it is
/// stored.
std::string own_dtype(const Source& source, const trainer::ModelConfig& config) {
  if (source.kind == Source::Kind::kCheckpoint) {
    const fs::path run =
        fs::absolute(source.weights).lexically_normal().parent_path().parent_path();
    if (fs::exists(run / "recipe.toml")) {
      return trainer::export_dtype(
          recipes::parse(run / "recipe.toml", {}, {.purpose = recipes::Purpose::kPrepare}), config);
    }
  }
  if (config.stored_dtype == "bfloat16") return "bf16";
  return config.stored_dtype == "float16" ? "fp16" : "fp32";
}

void print_difference(trainer::Model& model, const fs::path& out) {
  const at::Tensor before = probe_logits(model);
  const LoadedModel merged =
      load_model(model_source(out), {.compute = at::kFloat, .weights = at::kFloat});
  std::printf("largest difference of a logit to base + adapter in fp32: %.3g (of %.3g)\n",
              (probe_logits(*merged.model) - before).abs().max().item<double>(),
              before.abs().max().item<double>());
}

/// OUT is replaced as a whole, so it must be nothing that a user would miss: absent, empty, or an
/// earlier export.
void check_output(const fs::path& out, const Source& source) {
  std::error_code ignored;
  if (!fs::exists(out, ignored)) return;
  if (!fs::is_directory(out, ignored))
    throw UserError(out.string() + ": exists and is not a directory");
  if (fs::equivalent(out, source.weights, ignored) || fs::equivalent(out, source.model, ignored)) {
    throw UserError(out.string() + ": is the source itself; give another directory");
  }
  const bool earlier_export = (fs::exists(out / "config.json", ignored) ||
                               fs::exists(out / "adapter_config.json", ignored)) &&
                              !fs::exists(out / ".git", ignored);
  if (!fs::is_empty(out, ignored) && !earlier_export) {
    throw UserError(
        out.string() +
        ": exists and is no earlier export (no config.json in it); give a new directory");
  }
}

}  // namespace

int export_command(const std::vector<std::string>& arguments) {
  ArgumentParser parser(
      "temper export SOURCE OUT [options]",
      "Writes a checkpoint, the newest complete checkpoint of a run, or a model as a directory "
      "that\n"
      "transformers loads: config, safetensors, tokenizer, chat template, generation config; "
      "adapters as\n"
      "PEFT loads them, or with --merge folded into their base.",
      "temper export runs/alpaca/checkpoints/step-000200 out --merge --dtype bf16");
  parser.positional("SOURCE", "a checkpoint, run, model or adapter directory");
  parser.positional("OUT", "the directory to write; an earlier export there is replaced");
  parser.options().add_options()(
      "dtype", po::value<std::string>()->default_value("auto"),
      "fp32, bf16 or fp16; auto: as its run would export it, else as stored")(
      "format", po::value<std::string>()->default_value("safetensors"), "safetensors")(
      "max-shard-size", po::value<std::string>()->default_value("5GB"), "of a weights file")(
      "merge", "fold the adapter into the weights of its base, in the base's own precision")(
      "base", po::value<std::string>(),
      "the base model of an adapter, instead of the one it names")(
      "adapter", po::value<std::vector<std::string>>(),
      "DIR[=WEIGHT], several: LoRA adapters of SOURCE, made into one")(
      "combination", po::value<std::string>(),
      "linear (default), cat, svd, ties, dare_linear or dare_ties")(
      "density", po::value<double>(), "ties, dare_*: the share of entries that is kept");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;
  check_format((*given)["format"].as<std::string>());
  const std::string dtype = *one_of(*given, "dtype", {"auto", "fp32", "bf16", "fp16"});
  const int64_t max_shard_bytes = trainer::parse_size((*given)["max-shard-size"].as<std::string>());
  const fs::path out = (*given)["OUT"].as<std::string>();
  const bool merge = given->count("merge") != 0;

  const Source source = source_of(*given);
  check_output(out, source);
  const LoadedModel loaded = load(*given, source);
  if (merge && !loaded.adapters) {
    throw UserError("temper export: --merge: " + source.weights.string() +
                    " holds no adapter to merge");
  }
  if (loaded.adapters && !merge) {
    export_adapter(*loaded.adapters, source, out, dtype,
                   model_card(source, loaded.model->config()));
    std::cout << source.weights.string() << " -> " << out.string() << " (adapter)\n";
    return kDone;
  }
  const std::string stored = dtype == "auto" ? own_dtype(source, loaded.model->config()) : dtype;
  const trainer::ModelConfig& config = loaded.model->config();
  trainer::export_model({.tensors = weights_of(loaded, source, trainer::stored_type(stored)),
                         .read = [&](const auto& part) { return trainer::as_stored(part, config); },
                         .config = config.json,
                         .tokenizer = source.tokenizer,
                         .model_directory = source.model,
                         .model_card = model_card(source, config)},
                        out, stored, max_shard_bytes);
  std::cout << source.weights.string() << " -> " << out.string() << " (" << stored << ")\n";
  if (merge) print_difference(*loaded.model, out);
  return kDone;
}

}  // namespace temper::launch
