#include "launch/inspect.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>
#include <string>

#include <unistd.h>

#include "launch/arguments.h"
#include "launch/command.h"
#include "launch/source.h"
#include "recipes/diagnostic.h"

namespace temper::launch {

namespace fs = std::filesystem;
using data::Json;

namespace {

std::string size_text(const Json& bytes) {
  char text[32];
  const auto count = bytes.get<double>();
  if (count >= 1 << 20) {
    std::snprintf(text, sizeof text, "%.1f MiB", count / (1 << 20));
  } else {
    std::snprintf(text, sizeof text, "%.1f KiB", count / (1 << 10));
  }
  return text;
}

/// A value on one line: strings as they are, the rest as JSON.
std::string plain(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

void print_tensors(const Json& report) {
  size_t width = 0;
  for (const Json& tensor : report["tensors"])
    width = std::max(width, tensor["name"].get_ref<const std::string&>().size());
  for (const Json& tensor : report["tensors"]) {
    std::string name = plain(tensor["name"]);
    name.resize(width + 2, ' ');
    std::cout << "  " << name << plain(tensor["dtype"]) << " " << tensor["shape"].dump() << "\n";
  }
  std::cout << report["tensors"].size() << " tensors, " << report["numbers"] << " numbers, "
            << size_text(report["bytes"]) << "\n";
}

/// Lists and long texts inside an object are for --json.
void print_scalars(const Json& object, const char* indent) {
  for (const auto& [key, value] : object.items()) {
    if (value.is_structured() || (value.is_string() && value.get_ref<const std::string&>().find(
                                                           '\n') != std::string::npos)) {
      continue;
    }
    std::cout << indent << key << ": " << plain(value) << "\n";
  }
}

/// What is trained on is green on a terminal, else in [[ ]].
std::string painted(const std::string& text, bool trained) {
  static const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  if (!trained) return text;
  return terminal ? "\033[32m" + text + "\033[0m" : "[[" + text + "]]";
}

void print_runs(const Json& runs) {
  for (const Json& run : runs) std::cout << painted(plain(run["text"]), run["trained"].get<bool>());
  std::cout << "\n";
}

/// "12 tokens, 5 trained on", and its text.
void print_document(const Json& document) {
  std::cout << document["tokens"] << " tokens, " << document["trained_tokens"] << " trained on";
  if (document["shown_tokens"] != document["tokens"]) {
    std::cout << "; the first " << document["shown_tokens"] << " (data.max_length):";
  }
  std::cout << "\n";
  print_runs(document["runs"]);
}

std::string percent(const Json& ratio) {
  char text[16];
  std::snprintf(text, sizeof text, "%.1f %%", 100 * ratio.get<double>());
  return text;
}

/// A line a power of two: "   64 to 127      1234 ########".
void print_lengths(const Json& lengths, const Json& fill) {
  if (!lengths.is_object()) return;
  std::cout << "lengths: mean " << std::llround(lengths["mean"].get<double>()) << ", median "
            << lengths["median"] << ", longest " << lengths["longest"] << " tokens\n";
  int64_t most = 1;
  for (const Json& bar : lengths["histogram"]) most = std::max(most, bar["rows"].get<int64_t>());
  for (const Json& bar : lengths["histogram"]) {
    const auto rows = bar["rows"].get<int64_t>();
    char line[64];
    std::snprintf(line, sizeof line, "%9lld to %-9lld %9lld ", bar["from"].get<long long>(),
                  bar["to"].get<long long>(), static_cast<long long>(rows));
    std::cout << line << std::string(static_cast<size_t>((40 * rows + most - 1) / most), '#')
              << "\n";
  }
  if (!fill.is_object()) return;
  std::cout << "batches: " << percent(fill["ratio"])
            << " of their positions are tokens: " << fill["sequences"]
            << (fill["packing"] == "none" ? " rows, padded" : " packed rows")
            << " (data.packing = " << fill["packing"].dump()
            << ", data.max_length = " << fill["max_length"] << ")\n";
}

void print_source(const Json& source) {
  std::cout << "\n"
            << plain(source["set"]) << ": " << plain(source.value("statement", source["path"]))
            << "\n";
  const Json& first = source["first_rows"];
  std::cout << "of the first " << first["read"] << " rows: " << first["taken"] << " taken, "
            << first["tokens"] << " tokens, " << first["supervised"] << " trained on; "
            << first["long_rows"] << " above data.max_length: " << first["split"] << " split, "
            << first["dropped"] << " dropped, " << first["tokens_cut"] << " tokens cut; "
            << first["bad_rows"] << " bad\n";
  for (const Json& bad : first["first_bad"]) std::cout << "  bad: " << plain(bad) << "\n";
  print_lengths(source["lengths"], source.value("fill", Json()));
  for (const Json& row : source["rows"]) {
    std::cout << "\n-- " << plain(row["where"]) << ": ";
    if (row.contains("bad")) {
      std::cout << "bad: " << plain(row["bad"]) << "\n";
    } else if (row.contains("documents")) {
      std::cout << row["documents"].size() << " documents\n";
      for (const Json& document : row["documents"]) {
        std::cout << plain(document["name"]) << ": ";
        print_document(document);
      }
    } else {
      print_document(row);
    }
    if (row.contains("tokens_cut"))
      std::cout << row["tokens_cut"] << " tokens cut (data.max_length)\n";
    if (row.contains("columns")) std::cout << "columns: " << row["columns"].dump() << "\n";
  }
}

void print_shard_document(const Json& document) {
  if (document.contains("runs")) return print_runs(document["runs"]);
  for (size_t t = 0; t < document["ids"].size(); ++t) {
    std::cout << painted(document["ids"][t].dump(), t > 0 && document["supervised"][t] != 0) << " ";
  }
  std::cout << "\n";
}

void print_shard_rows(const Json& rows) {
  for (const Json& row : rows) {
    std::cout << "\n-- row " << row["row_number"] << "\n";
    if (!row.contains("documents")) {
      print_shard_document(row);
      continue;
    }
    for (const Json& document : row["documents"]) print_shard_document(document);
  }
}

void print_report(const Json& report) {
  print_scalars(report, "");
  for (const char* part : {"metadata", "config", "state", "last_metrics"}) {
    if (report.contains(part) && report[part].is_object() && !report[part].empty()) {
      std::cout << part << ":\n";
      print_scalars(report[part], "  ");
    }
  }
  if (report.contains("checkpoints")) {
    std::cout << "checkpoints:\n";
    for (const Json& checkpoint : report["checkpoints"]) {
      const std::string damage = plain(checkpoint["damage"]);
      std::cout << "  " << plain(checkpoint["name"])
                << (damage.empty() ? "" : "  damaged: " + damage) << "\n";
    }
  }
  if (report.contains("tensors")) print_tensors(report);
  if (report.contains("first_rows")) {
    print_lengths(report["lengths"], report["fill"]);
    print_shard_rows(report["first_rows"]);
  }
  if (report.contains("sources")) {
    for (const Json& source : report["sources"]) print_source(source);
  }
}

Json describe(const fs::path& path, int64_t rows, const std::string& model) {
  std::error_code ignored;
  if (!fs::exists(path, ignored)) throw UserError(path.string() + ": no such file or directory");
  if (fs::is_directory(path, ignored)) {
    if (is_checkpoint(path)) return inspect_checkpoint(path);
    if (is_run(path)) return inspect_run(path);
    if (fs::exists(path / "config.json", ignored)) return inspect_model(path);
    if (fs::exists(path / "adapter_config.json", ignored)) return inspect_adapter(path);
    throw UserError(path.string() +
                    ": neither a model (config.json), an adapter (adapter_config.json), a run "
                    "(recipe.toml) nor a checkpoint (manifest.json)");
  }
  if (path.extension() == ".safetensors") return inspect_safetensors(path);
  if (path.extension() == ".toml") return inspect_recipe(path, rows);
  if (path.extension() == ".h5") return inspect_shard(path, rows, model);
  throw UserError(
      path.string() +
      ": unknown kind of file: must be .safetensors, .h5 (a token shard) or .toml (a recipe)");
}

}  // namespace

int inspect(const std::vector<std::string>& arguments) {
  ArgumentParser parser(
      "temper inspect PATH [options]",
      "What is in a safetensors file, a model, an adapter, a checkpoint, a run or a token shard; "
      "of a recipe\n"
      "the first rows of its data as they are trained on (green, or in [[ ]] where this is no "
      "terminal), and of\n"
      "the first 10,000 what is cut and dropped, their lengths, and how full batches are.",
      "temper inspect configs/quickstart.toml --rows 2");
  parser.positional("PATH", "a file or directory, or a recipe (.toml)");
  parser.options().add_options()("rows", po::value<int64_t>()->default_value(3),
                                 "rows of a recipe or shard to show")(
      "model", po::value<std::string>()->default_value(""),
      "of a shard: show text, by the tokenizer of this model directory, instead of ids")(
      "json", "one JSON object instead of lines");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;
  const auto rows = (*given)["rows"].as<int64_t>();
  if (rows < 0)
    throw UserError("temper inspect: --rows " + std::to_string(rows) + ": must be 0 or above");
  const Json report =
      describe((*given)["PATH"].as<std::string>(), rows, (*given)["model"].as<std::string>());
  if (given->count("json") != 0) {
    std::cout << data::dump_json(report);
  } else {
    print_report(report);
  }
  return kDone;
}

}  // namespace temper::launch
