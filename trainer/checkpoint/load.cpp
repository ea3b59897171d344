#include <algorithm>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/safetensors_header.h"
#include "trainer/checkpoint/state.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;

std::vector<SafetensorsFile> open_rank_files(const fs::path& directory) {
  std::vector<SafetensorsFile> files;
  const Manifest manifest = read_manifest(directory);
  for (int rank = 0; rank < manifest.ranks; ++rank) files.emplace_back(directory / rank_file(rank));
  return files;
}

}  // namespace

std::string checkpoint_damage(const fs::path& directory) {
  try {
    for (const auto& [name, written] : read_manifest(directory).files) {
      const fs::path path = directory / name;
      std::error_code missing;
      const uint64_t bytes = fs::file_size(path, missing);
      if (missing) return path.string() + ": is missing";
      if (bytes != written.bytes) {
        return path.string() + ": has " + std::to_string(bytes) + " bytes, must have " +
               std::to_string(written.bytes);
      }
      if (digest_of(path).xxh3 != written.xxh3) {
        return path.string() + ": its checksum differs from the manifest's";
      }
    }
  } catch (const UserError& error) {
    return error.lines().front();
  }
  return "";
}

std::optional<FoundCheckpoint> find_checkpoint(const fs::path& checkpoints) {
  std::vector<std::pair<int64_t, fs::path>> candidates;
  if (!fs::is_directory(checkpoints)) return std::nullopt;
  for (const auto& entry : fs::directory_iterator(checkpoints)) {
    if (const auto step = step_of(entry.path().filename().string())) {
      candidates.emplace_back(*step, entry.path());
    }
  }
  std::sort(candidates.rbegin(), candidates.rend());
  FoundCheckpoint found;
  for (const auto& [step, directory] : candidates) {
    const std::string damage = checkpoint_damage(directory);
    if (damage.empty()) {
      found.directory = directory;
      found.step = step;
      return found;
    }
    found.damaged.push_back("damaged checkpoint: " + damage);
  }
  if (found.damaged.empty()) return std::nullopt;
  found.damaged.push_back(checkpoints.string() +
                          ": no checkpoint is usable (remove the directory, or set "
                          "run.overwrite=true, to start from the beginning)");
  throw UserError(found.damaged);
}

data::Json load_checkpoint(const fs::path& directory, const NamedTensors& tensors) {
  const std::vector<SafetensorsFile> files = open_rank_files(directory);
  std::vector<std::string> findings;
  for (const auto& [name, tensor] : tensors) {
    const auto fail = [&](const std::string& what) {
      findings.push_back(directory.string() + ": tensor '" + name + "': " + what);
    };
    const auto file = std::find_if(files.begin(), files.end(),
                                   [&](const auto& candidate) { return candidate.contains(name); });
    if (file == files.end()) {
      fail("is missing: a checkpoint of another model or optimizer?");
    } else if (const at::Tensor saved = file->tensor(name); saved.sizes() != tensor.sizes()) {
      fail("is " + data::Json(saved.sizes().vec()).dump() + ", must be " +
           data::Json(tensor.sizes().vec()).dump());
    } else if (saved.scalar_type() != tensor.scalar_type()) {
      fail("is " + safetensors_dtype(saved.scalar_type()) + ", must be " +
           safetensors_dtype(tensor.scalar_type()));
    } else {
      tensor.detach().copy_(saved);
    }
  }
  if (!findings.empty()) throw UserError(findings);
  return data::read_json(directory / kStateFile);
}

NamedTensors read_checkpoint(const fs::path& directory) {
  NamedTensors tensors;
  for (const SafetensorsFile& file : open_rank_files(directory)) {
    for (const std::string& name : file.names()) tensors.emplace_back(name, file.tensor(name));
  }
  return tensors;
}

}  // namespace temper::trainer
