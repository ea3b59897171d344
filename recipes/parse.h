#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "recipes/recipe.h"

/// TOML in, Recipe out. A recipe is read in layers, later ones over earlier ones: the files it
/// `extends` (each with its own, in order), the file itself, then the `key=value` overrides of the
/// command line. Within train.steps and train.epochs the later layer wins, so that an override may
/// replace one by the other;
/// [[data.train]], [[data.eval]] and [[objective.rewards]] of a later layer replace the list.
///
///     const Recipe recipe = parse("sft.toml", {"optimizer.lr=1e-4",
///     "data.train.0.path=rows.jsonl"});
///
/// `extends` is relative to the directory of the recipe that says it; all other paths are left as
/// written, relative to the working directory. No file but recipes is opened.
namespace temper::recipes {

/// What the recipe is read for: what must be in it.
enum class Purpose {
  kTrain,    // model.path, run.name, [[data.train]]; batches and axes that fit the ranks
  kPrepare,  // model.path, [[data.train]]
  kEval,     // model.path, [[data.eval]]
};

struct Setting {
  Purpose purpose = Purpose::kTrain;
  /// Ranks; unset: the recipe alone is judged.
  std::optional<int64_t> world_size{};
};

/// The recipe, validated and resolved. Throws UserError with all findings, one line each, in
/// reading order:
///     sft.toml:14: optimizer.lr = -0.1: must be a number, above 0 or "auto"
///     command line: optimizer.lr=abc: must be a number, above 0 or "auto"
Recipe parse(const std::filesystem::path& file, const std::vector<std::string>& overrides,
             const Setting& setting = {});

/// What is read the same way, unjudged: for what must be known before ranks can meet. Keys that do
/// not fit are left out; parse() says what is wrong.
Recipe peek(const std::filesystem::path& file, const std::vector<std::string>& overrides);

}  // namespace temper::recipes
