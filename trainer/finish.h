#pragma once

#include "trainer/loop.h"

namespace temper::trainer {

class Checkpoints;
class Recorder;

/// The last checkpoint, the export and the report of a run whose steps are done. Collective.
Outcome finish(Run& run, RunDirectory& directory, Checkpoints& checkpoints, Recorder& recorder, int64_t step);

}  // namespace temper::trainer
