#pragma once

#include <cstdint>
#include <span>

#include "data/io/json.h"
#include "recipes/recipe.h"

namespace temper::launch {

/// {"mean", "median", "longest", "histogram": [{"from", "to", "rows"}, ...]}, of powers of two;
/// null without rows.
data::Json length_report(std::span<const int32_t> lengths);

/// {"packing", "max_length", "sequences", "ratio"}: which share of a batch's positions are tokens,
/// of rows of these lengths in file order. Without packing rows of a micro-batch are padded to its
/// longest. Null without rows.
data::Json fill_report(std::span<const int32_t> lengths, const recipes::Data& data, int64_t micro);

}  // namespace temper::launch
