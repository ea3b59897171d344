#include "trainer/checkpoint/export.h"

#include <fstream>
#include <iostream>
#include <sstream>

#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/source.h"
#include "recipes/diagnostic.h"
#include "recipes/parse.h"
#include "trainer/finish.h"
#include "trainer/models/model.h"

namespace temper::launch {

namespace fs = std::filesystem;

namespace {

/// Options of adapters, which this version does not have: refused by name, not ignored.
void refuse_adapter_options(const po::variables_map& given) {
  for (const char* option : {"merge", "adapter", "base", "combination"}) {
    if (given.count(option) != 0) {
      throw UserError(std::string("temper export: --") + option +
                      ": adapters are not in this version of temper");
    }
  }
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
  const bool earlier_export =
      fs::exists(out / "config.json", ignored) && !fs::exists(out / ".git", ignored);
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
      "transformers loads: config, safetensors, tokenizer, chat template, generation config.",
      "temper export runs/alpaca/checkpoints/step-000200 out --dtype bf16");
  parser.positional("SOURCE", "a checkpoint, run or model directory");
  parser.positional("OUT", "the directory to write; an earlier export there is replaced");
  parser.options().add_options()(
      "dtype", po::value<std::string>()->default_value("auto"),
      "fp32, bf16 or fp16; auto: as its run would export it, else as stored")(
      "format", po::value<std::string>()->default_value("safetensors"), "safetensors")(
      "max-shard-size", po::value<std::string>()->default_value("5GB"), "of a weights file")(
      "merge", "not in this version")("adapter", po::value<std::string>(), "not in this version")(
      "base", po::value<std::string>(), "not in this version")(
      "combination", po::value<std::string>(), "not in this version");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;
  refuse_adapter_options(*given);
  check_format((*given)["format"].as<std::string>());
  std::string dtype = *one_of(*given, "dtype", {"auto", "fp32", "bf16", "fp16"});
  const int64_t max_shard_bytes = trainer::parse_size((*given)["max-shard-size"].as<std::string>());
  const fs::path out = (*given)["OUT"].as<std::string>();

  const Source source = resolve_source((*given)["SOURCE"].as<std::string>(), RunMeans::kCheckpoint);
  check_output(out, source);
  const auto model = load_model(source, {.compute = at::kFloat, .weights = at::kFloat});
  if (dtype == "auto") dtype = own_dtype(source, model->config());

  trainer::ExportSource exported{.tensors = {},
                                 .config = model->config().json,
                                 .model_directory = source.model,
                                 .model_card = model_card(source, model->config())};
  for (const auto& parameter : model->parameters()) {
    exported.tensors.emplace_back(parameter.name, parameter.master.detach());
  }
  trainer::export_model(exported, out, dtype, max_shard_bytes);
  std::cout << source.weights.string() << " -> " << out.string() << " (" << dtype << ")\n";
  return kDone;
}

}  // namespace temper::launch
