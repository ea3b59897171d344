#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "trainer/adapters/adapters.h"

namespace temper::trainer {

struct ModelOptions;
struct Run;

/// The weights that the run's model was read from; empty for one that was drawn. `run` must outlive
/// it.
StoredBase stored_base(const Run& run);

/// New adapters of the recipe's [peft] on run.model, whose weights must be there, as they are before
/// step 1. EVA looks at the training data for that; where `checkpoint` is going to be loaded it says
/// the ranks, and without training data (an evaluation) they stay as [peft] has them.
std::unique_ptr<Adapters> start_adapters(Run& run, const ModelOptions& options,
                                         const std::optional<std::filesystem::path>& checkpoint);

}  // namespace temper::trainer
