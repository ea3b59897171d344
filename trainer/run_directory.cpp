#include "trainer/run_directory.h"

#include <sys/statvfs.h>

#include "data/io/atomic_file.h"
#include "parallel/log.h"
#include "recipes/diagnostic.h"
#include "recipes/parse.h"
#include "recipes/resolve.h"
#include "trainer/checkpoint/state.h"

namespace temper::trainer {

namespace {

namespace fs = std::filesystem;

// Keys that may differ are said; any other difference is refused: its old and its new value.
void compare_recipes(const recipes::Recipe& now, RunDirectory& directory) {
  const fs::path saved = directory.path / "recipe.toml";
  if (!fs::exists(saved)) return;
  std::vector<std::string> refused, said;
  for (const recipes::Difference& difference : recipes::differences(recipes::parse(saved, {}), now)) {
    const std::string line = difference.key + ": " + difference.before + " -> " + difference.after;
    (difference.may_differ_on_resume ? said : refused).push_back(line);
  }
  if (!refused.empty()) {
    for (std::string& line : refused) {
      line = directory.path.string() + ": cannot resume with " + line +
             " (give it back its old value, another run.name, or run.overwrite=true)";
    }
    throw UserError(refused);
  }
  if (!said.empty()) directory.statements.push_back("resuming with " + join(said, "; "));
}

bool export_is_complete(const RunDirectory& directory) {
  return fs::exists(directory.export_directory() / "config.json") || fs::exists(directory.export_directory() / "adapter_config.json");
}

}  // namespace

int64_t free_bytes(const fs::path& path) {
  fs::path existing = fs::absolute(path);
  while (!fs::exists(existing) && existing.has_relative_path()) existing = existing.parent_path();
  struct statvfs info {};
  if (::statvfs(existing.c_str(), &info) != 0) return 0;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

RunDirectory look_at_run_directory(const recipes::Recipe& recipe, int64_t total_steps) {
  RunDirectory directory{.path = fs::path(recipe.run.output) / recipe.run.name};
  const bool exists = fs::exists(directory.path) && !fs::is_empty(directory.path);
  if (recipe.run.resume == recipes::Resume::kMust && (!exists || recipe.run.overwrite)) {
    throw UserError("run.resume = \"must\": there is no run to resume in " + directory.path.string());
  }
  if (!exists || recipe.run.overwrite) return directory;
  if (recipe.run.resume == recipes::Resume::kNever) {
    throw UserError("run.resume = \"never\": " + directory.path.string() +
                    " holds a run already (take another run.name, or run.overwrite=true)");
  }
  compare_recipes(recipe, directory);
  const std::optional<FoundCheckpoint> found = find_checkpoint(directory.checkpoints());
  if (!found) {
    if (recipe.run.resume == recipes::Resume::kMust) {
      throw UserError("run.resume = \"must\": no complete checkpoint in " + directory.checkpoints().string());
    }
    return directory;
  }
  for (const std::string& damaged : found->damaged) {
    directory.statements.push_back(damaged + "; falling back to " + found->directory.string());
  }
  directory.checkpoint = found->directory;
  directory.resume_step = found->step;
  const data::Json state = data::read_json(found->directory / "state.json");
  const bool stopped_for_good = state.value("early_stopped", false) && recipe.eval.early_stopping_patience > 0;
  directory.finished = (found->step >= total_steps || stopped_for_good) && export_is_complete(directory);
  if (!directory.finished) {
    directory.statements.push_back("resuming from " + found->directory.string() + " (step " + std::to_string(found->step) +
                                   " of " + std::to_string(total_steps) + ")");
  }
  return directory;
}

void open_run_directory(const RunDirectory& directory, const recipes::Recipe& recipe, const data::Json& environment,
                        int64_t checkpoint_bytes, int64_t export_bytes) {
  const int64_t needed = (recipe.checkpoint.keep + 1) * checkpoint_bytes + export_bytes;
  if (const int64_t free = free_bytes(directory.path); free < needed) {
    throw UserError(directory.path.string() + ": " + std::to_string(free >> 20) + " MiB free, but " +
                    std::to_string(recipe.checkpoint.keep + 1) + " checkpoints and the export need " +
                    std::to_string(needed >> 20) + " MiB (checkpoint.keep, run.output)");
  }
  try {
    if (recipe.run.overwrite && fs::exists(directory.path)) fs::remove_all(directory.path);
    fs::create_directories(directory.path);
    data::write_file_atomically(directory.path / "recipe.toml", recipes::to_toml(recipe));
    data::write_file_atomically(directory.path / "environment.json", data::dump_json(environment));
  } catch (const std::exception& error) {
    throw UserError(directory.path.string() + ": the run directory cannot be written: " + error.what() +
                    " (run.output, run.name)");
  }
}

}  // namespace temper::trainer
