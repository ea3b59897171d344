#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "trainer/checkpoint/streamed_file.h"

/// manifest.json, the last file written into a checkpoint: without it a directory is no checkpoint,
/// and it says what every other file must hold. The names of all files in a checkpoint directory
/// are made here.
namespace temper::trainer {

struct Manifest {
  int64_t step = 0;
  int ranks = 0;
  std::map<std::string, FileDigest> files;
};

inline constexpr const char* kManifestFile = "manifest.json";
inline constexpr const char* kStateFile = "state.json";
std::string step_directory(int64_t step);  // "step-000200"
std::string rank_file(int rank);           // "rank-00003.safetensors"
/// Where a rank leaves its file's digest for rank 0, until the manifest is written:
/// "rank-00003.digest.json".
std::string digest_file(int rank);
/// The step of "step-000200" (of "step-000200.partial" with that suffix); unset for other names.
std::optional<int64_t> step_of(const std::string& name, const std::string& suffix = "");

void write_digest(const std::filesystem::path& path, const FileDigest& digest);
FileDigest read_digest(const std::filesystem::path& path);

void write_manifest(const std::filesystem::path& directory, const Manifest& manifest);
/// Throws UserError "DIRECTORY/manifest.json: what" when it is missing, malformed, or leaves out a
/// file that must be there.
Manifest read_manifest(const std::filesystem::path& directory);

}  // namespace temper::trainer
