#pragma once

#include <cstdint>
#include <utility>

#include "recipes/findings.h"
#include "recipes/parse.h"
#include "recipes/recipe.h"

/// Rules across keys and tables that need no file, and what this version cannot do yet. Ranges of
/// single keys are in schema.cpp.
namespace temper::recipes {

/// Adds to `findings` what breaks a rule; a rule about a key that already has a finding is not
/// judged.
void validate(const Recipe& recipe, const Setting& setting, Findings& findings);

/// Ranks that work on different rows: replicate x shard. Meaningful when the axes fit the world.
int64_t data_parallel_ranks(const Parallel& parallel, int64_t world_size);

/// The multiples of `unit` (above 0) around `value` that is none: {0, unit} below the first.
std::pair<int64_t, int64_t> nearest_multiples(int64_t value, int64_t unit);

}  // namespace temper::recipes
