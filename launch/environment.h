#pragma once

#include "data/io/json.h"
#include "parallel/world.h"

namespace temper::launch {

/// environment.json: versions, the world's layout, git revision of the program, host.
data::Json environment(const parallel::World& world);

}  // namespace temper::launch
