#include "trainer/adapters/adapter_files.h"

#include <algorithm>
#include <set>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/hub/repository.h"
#include "data/io/atomic_file.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/adapter_config.h"
#include "trainer/checkpoint/replaced_directory.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;
using data::Json;

constexpr const char* kConfigFile = "adapter_config.json";
constexpr const char* kWeightsFile = "adapter_model.safetensors";
constexpr const char* kPickleFile = "adapter_model.bin";
constexpr const char* kCardFile = "README.md";

std::string shape_text(at::IntArrayRef shape) { return Json(shape.vec()).dump(); }

// What is wrong with tensors of a file. An adapter has hundreds, of which the wrong base spoils
// most: a line for the first with each problem, and how many more have it.
class Mismatches {
 public:
  explicit Mismatches(const fs::path& file) : file_(file) {}

  void add(const std::string& name, const std::string& problem, const std::string& detail = "") {
    const auto same = std::find_if(rows_.begin(), rows_.end(),
                                   [&](const Row& row) { return row.problem == problem; });
    if (same != rows_.end()) {
      ++same->others;
    } else {
      rows_.push_back({file_.string() + ": '" + name + "' " + detail + problem, problem});
    }
  }

  void check() const {
    std::vector<std::string> lines;
    for (const Row& row : rows_) {
      lines.push_back(row.line);
      if (row.others > 0) lines.back() += " (and " + std::to_string(row.others) + " more like it)";
    }
    if (!lines.empty()) throw UserError(lines);
  }

 private:
  struct Row {
    std::string line, problem;
    int64_t others = 0;
  };
  const fs::path& file_;
  std::vector<Row> rows_;
};

bool is_adapter_file(const std::string& name) {
  return name == kConfigFile || name == kWeightsFile || name == kPickleFile || name == kCardFile ||
         is_tokenizer_file(name);
}

}  // namespace

recipes::Peft read_adapter_config(const fs::path& directory) {
  const fs::path file = directory / kConfigFile;
  return peft_of_config(data::read_json(file), file);
}

std::string adapter_base(const fs::path& directory) {
  const Json json = data::read_json(directory / kConfigFile);
  const auto text = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : "";
  };
  const std::string base = text("base_model_name_or_path"), revision = text("revision");
  return revision.empty() || !data::hub_name(base) ? base : base + "@" + revision;
}

void write_adapter(const fs::path& out, const Json& config, const NamedTensors& tensors,
                   const std::string& model_card, const std::optional<TokenizerFiles>& tokenizer) {
  write_directory(out, is_adapter_file, [&](const fs::path& made) {
    if (tokenizer) copy_tokenizer(*tokenizer, made);
    write_safetensors(made / kWeightsFile, tensors, {{"format", "pt"}});
    data::write_file_atomically(made / kCardFile, model_card);
    data::write_file_atomically(made / kConfigFile, data::dump_json(config));
  });
}

fs::path tokenizer_of(const fs::path& adapter, const fs::path& base) {
  return fs::exists(adapter / "tokenizer.json") ? adapter : base;
}

fs::path adapter_weights(const fs::path& directory) {
  const fs::path path = directory / kWeightsFile;
  if (!fs::exists(path)) {
    if (fs::exists(directory / kPickleFile)) {
      throw UserError(directory.string() + ": holds only " + kPickleFile +
                      ", a pickle, which may run code when it is read: convert it to " +
                      kWeightsFile + " (PEFT: model.save_pretrained)");
    }
    throw UserError(directory.string() + ": has no " + kWeightsFile);
  }
  return path;
}

NamedTensors read_adapter(const fs::path& directory, const NamedTensors& tensors,
                          const NamedTensors& optional) {
  const fs::path path = adapter_weights(directory);
  const at::NoGradGuard off;
  const SafetensorsFile file(path);
  Mismatches mismatches(path);
  std::set<std::string> wanted;
  // The stored tensor, or nothing and a mismatch.
  const auto find = [&](const std::string& key, const at::Tensor& like) -> at::Tensor {
    wanted.insert(key);
    if (!file.contains(key)) {
      mismatches.add(key, "is missing");
      return {};
    }
    const at::Tensor stored = file.tensor(key);
    if (stored.sizes() != like.sizes()) {
      mismatches.add(key, ": an adapter for another base model?",
                     "is " + shape_text(stored.sizes()) + ", must be " + shape_text(like.sizes()));
      return {};
    }
    if (!at::isFloatingType(stored.scalar_type())) {
      mismatches.add(key, ", not floating-point",
                     std::string("is ") + c10::toString(stored.scalar_type()));
      return {};
    }
    if (!at::isfinite(stored).all().item<bool>()) {
      mismatches.add(key, "holds NaN or infinite values");
      return {};
    }
    return stored;
  };
  for (const auto& [key, tensor] : tensors) {
    const at::Tensor stored = find(key, tensor);
    if (stored.defined()) tensor.copy_(stored);
  }
  NamedTensors found;
  for (const auto& [key, like] : optional) {
    if (file.contains(key)) found.emplace_back(key, find(key, like));
  }
  for (const std::string& name : file.names()) {
    if (wanted.contains(name)) continue;
    mismatches.add(name, "has no place in this model with this adapter_config.json");
  }
  mismatches.check();
  return found;
}

}  // namespace temper::trainer
