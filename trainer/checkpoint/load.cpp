#include <algorithm>
#include <map>
#include <optional>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/checkpoint/manifest.h"
#include "trainer/checkpoint/piece.h"
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

namespace {

// Where parts of a tensor are: whole in one file, or as pieces that several ranks have written.
struct Part {
  const SafetensorsFile* file = nullptr;
  std::string name;  // in the file
  int64_t begin = 0;
};

struct Stored {
  std::vector<int64_t> shape;  // of the whole
  at::ScalarType type = at::kFloat;
  std::vector<Part> parts;
};

std::map<std::string, Stored> stored_tensors(const std::vector<SafetensorsFile>& files) {
  std::map<std::string, Stored> found;
  for (const SafetensorsFile& file : files) {
    for (const std::string& name : file.names()) {
      const std::optional<Piece> piece = piece_of(name);
      Stored& stored = found[piece ? piece->whole : name];
      stored.shape = piece ? piece->shape : file.shape(name);
      stored.type = file.dtype(name);
      stored.parts.push_back({.file = &file, .name = name, .begin = piece ? piece->begin : 0});
    }
  }
  return found;
}

// Copies elements from `begin` on into `flat`; says whether all of them were there.
bool fill(const at::Tensor& flat, int64_t begin, const Stored& stored) {
  int64_t filled = 0;
  for (const Part& part : stored.parts) {
    const at::Tensor saved = part.file->tensor(part.name).view({-1});
    const int64_t from = std::max(begin, part.begin);
    const int64_t to = std::min(begin + flat.numel(), part.begin + saved.numel());
    if (from >= to) continue;
    flat.narrow(0, from - begin, to - from).copy_(saved.narrow(0, from - part.begin, to - from));
    filled += to - from;
  }
  return filled == flat.numel();
}

}  // namespace

data::Json load_checkpoint(const fs::path& directory, const NamedTensors& tensors) {
  const std::vector<SafetensorsFile> files = open_rank_files(directory);
  const std::map<std::string, Stored> stored = stored_tensors(files);
  std::vector<std::string> findings;
  for (const auto& [name, tensor] : tensors) {
    const auto fail = [&](const std::string& what) {
      findings.push_back(directory.string() + ": tensor '" + name + "': " + what);
    };
    const std::optional<Piece> piece = piece_of(name);
    const std::vector<int64_t> shape = piece ? piece->shape : tensor.sizes().vec();
    const auto found = stored.find(piece ? piece->whole : name);
    if (found == stored.end()) {
      fail("is missing: a checkpoint of another model or optimizer?");
    } else if (found->second.shape != shape) {
      fail("is " + data::Json(found->second.shape).dump() + ", must be " +
           data::Json(shape).dump());
    } else if (found->second.type != tensor.scalar_type()) {
      fail("is " + safetensors_dtype(found->second.type) + ", must be " +
           safetensors_dtype(tensor.scalar_type()));
    } else {
      const at::Tensor target = tensor.detach();
      const at::Tensor whole = target.contiguous();  // itself, but for a base that LoftQ has turned
      if (!fill(whole.view({-1}), piece ? piece->begin : 0, found->second)) {
        fail("has pieces missing: not all ranks have written theirs?");
      } else if (!whole.is_same(target)) {
        target.copy_(whole);
      }
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
