#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "launch/source.h"
#include "trainer/adapters/combine.h"

namespace temper::launch {

/// `base` with one LoRA made of several: each of `adapters` is DIR or DIR=WEIGHT (1 when not given).
/// Throws UserError for an adapter that is no plain LoRA of that base.
LoadedModel combine_on(const Source& base, const std::vector<std::string>& adapters,
                       const trainer::Combination& combination);

}  // namespace temper::launch
