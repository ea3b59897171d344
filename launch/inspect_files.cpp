#include <algorithm>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "launch/inspect.h"
#include "launch/source.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/checkpoint/safetensors_header.h"
#include "trainer/checkpoint/state.h"
#include "trainer/models/config.h"
#include "trainer/models/quantization.h"

namespace temper::launch {

namespace fs = std::filesystem;
using data::Json;

namespace {

Json tensor_row(const std::string& name, const at::Tensor& tensor) {
  return {{"name", name},
          {"dtype", trainer::safetensors_dtype(tensor.scalar_type())},
          {"shape", tensor.sizes().vec()},
          {"bytes", tensor.nbytes()}};
}

/// Adds "tensors", "parameters" (numbers in them) and "bytes" to `report`.
void add_tensors(Json& report, const trainer::NamedTensors& tensors) {
  int64_t numbers = 0, bytes = 0;
  Json rows = Json::array();
  for (const auto& [name, tensor] : tensors) {
    rows.push_back(tensor_row(name, tensor));
    numbers += tensor.numel();
    bytes += static_cast<int64_t>(tensor.nbytes());
  }
  report["numbers"] = numbers;
  report["bytes"] = bytes;
  report["tensors"] = std::move(rows);
}

trainer::NamedTensors tensors_of(const fs::path& file) {
  const trainer::SafetensorsFile opened(file);
  trainer::NamedTensors tensors;
  for (const std::string& name : opened.names()) tensors.emplace_back(name, opened.tensor(name));
  return tensors;
}

std::vector<fs::path> sorted_entries(const fs::path& directory) {
  std::vector<fs::path> entries;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(directory, ignored))
    entries.push_back(entry.path());
  std::sort(entries.begin(), entries.end());
  return entries;
}

/// The last line of metrics.jsonl, or null.
Json last_metrics(const fs::path& file) {
  std::ifstream lines(file);
  std::string last;
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty()) last = line;
  }
  return Json::parse(last, nullptr, /*allow_exceptions=*/false).is_object() ? Json::parse(last)
                                                                            : Json();
}

}  // namespace

Json inspect_safetensors(const fs::path& file) {
  Json report = {{"kind", "safetensors"}, {"path", file.string()}};
  report["metadata"] = Json::object();
  const trainer::SafetensorsFile opened(file);
  for (const auto& [key, value] : opened.metadata()) report["metadata"][key] = value;
  add_tensors(report, tensors_of(file));
  return report;
}

Json inspect_checkpoint(const fs::path& directory) {
  if (const std::string damage = trainer::checkpoint_damage(directory); !damage.empty()) {
    throw UserError("damaged checkpoint: " + damage);
  }
  Json report = {{"kind", "checkpoint"}, {"path", directory.string()}};
  report["state"] = data::read_json(directory / "state.json");
  add_tensors(report, trainer::read_checkpoint(directory));
  return report;
}

Json inspect_adapter(const fs::path& directory) {
  const recipes::Peft peft = trainer::read_adapter_config(directory);
  Json report = {{"kind", "adapter"},
                 {"path", directory.string()},
                 {"method", peft.method},
                 {"base", trainer::adapter_base(directory)}};
  report["config"] = data::read_json(directory / "adapter_config.json");
  add_tensors(report, tensors_of(trainer::adapter_weights(directory)));
  return report;
}

Json inspect_run(const fs::path& directory) {
  Json report = {{"kind", "run"}, {"path", directory.string()}};
  Json checkpoints = Json::array();
  for (const fs::path& entry : sorted_entries(directory / "checkpoints")) {
    if (!is_checkpoint(entry) || fs::is_symlink(entry)) continue;
    const std::string damage = trainer::checkpoint_damage(entry);
    checkpoints.push_back({{"name", entry.filename().string()}, {"damage", damage}});
  }
  report["checkpoints"] = std::move(checkpoints);
  report["export"] = fs::exists(directory / "export" / "config.json") ||
                     fs::exists(directory / "export" / "adapter_config.json");
  report["last_metrics"] = last_metrics(directory / "metrics.jsonl");
  return report;
}

Json inspect_model(const fs::path& directory) {
  const auto config = trainer::load_config(directory);
  Json report = {{"kind", "model"},
                 {"path", directory.string()},
                 {"architecture", config.architecture},
                 {"layers", config.num_hidden_layers},
                 {"hidden_size", config.hidden_size},
                 {"heads", config.num_attention_heads},
                 {"kv_heads", config.num_key_value_heads},
                 {"vocab_size", config.vocab_size},
                 {"context", config.max_position_embeddings},
                 {"tied", config.tie_word_embeddings}};
  if (const auto kind = trainer::stored_quantization(config.json, directory.string())) {
    report["quantization"] = trainer::name_of(*kind);
  }
  trainer::NamedTensors tensors;
  for (const fs::path& entry : sorted_entries(directory)) {
    if (entry.extension() != ".safetensors") continue;
    for (auto& named : tensors_of(entry)) tensors.push_back(std::move(named));
  }
  add_tensors(report, tensors);
  return report;
}

}  // namespace temper::launch
