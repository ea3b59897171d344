#pragma once

#include <filesystem>
#include <memory>
#include <optional>

namespace temper::trainer {

class Adapters;
struct ModelOptions;
struct Run;

/// New adapters of the recipe's [peft] on run.model, whose weights must be there, as they are before
/// step 1. EVA looks at the training data for that; where `checkpoint` is going to be loaded it says
/// the ranks, and without training data (an evaluation) they stay as [peft] has them.
std::unique_ptr<Adapters> start_adapters(Run& run, const ModelOptions& options,
                                         const std::optional<std::filesystem::path>& checkpoint);

}  // namespace temper::trainer
