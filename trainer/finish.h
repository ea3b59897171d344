#pragma once

#include <string>

#include "trainer/loop.h"

namespace temper::recipes {
struct Recipe;
}

namespace temper::trainer {

class Checkpoints;
class Recorder;
struct ModelConfig;

/// What the weights of a run are written as: export.dtype; "auto" means as the pretrained model was stored, else model.dtype.
std::string export_dtype(const recipes::Recipe& recipe, const ModelConfig& config);

/// The last checkpoint, the export and the report of a run whose steps are done. Collective.
Outcome finish(Run& run, RunDirectory& directory, Checkpoints& checkpoints, Recorder& recorder, int64_t step);

}  // namespace temper::trainer
