#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "data/io/json.h"
#include "recipes/recipe.h"

/// runs/<name>: what is there before a run, and what may go on from it.
namespace temper::trainer {

struct RunDirectory {
  std::filesystem::path path;
  int64_t resume_step = 0;                       // 0: from the start
  std::optional<std::filesystem::path> checkpoint{};
  std::vector<std::string> statements{};         // what was found (resumed from, passed over, keys that differ)
  bool finished = false;                         // nothing is left to do

  std::filesystem::path checkpoints() const { return path / "checkpoints"; }
  std::filesystem::path export_directory() const { return path / "export"; }
};

/// Looks (writes nothing): is there a run of that name, may this recipe resume it, from where. Throws UserError for what
/// product.md refuses (a changed key, resume = "never" over a run, "must" without one, no usable checkpoint).
RunDirectory look_at_run_directory(const recipes::Recipe& recipe, int64_t total_steps);

/// Creates the directory with recipe.toml and environment.json (called on rank 0 only); removes an overwritten run first. Throws
/// UserError, before anything is touched, when the disk is too small for keep + 1 checkpoints and the export.
void open_run_directory(const RunDirectory& directory, const recipes::Recipe& recipe, const data::Json& environment,
                        int64_t checkpoint_bytes, int64_t export_bytes);

/// Bytes free for an unprivileged user where `path` is or would be.
int64_t free_bytes(const std::filesystem::path& path);

}  // namespace temper::trainer
