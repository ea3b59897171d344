#pragma once

#include "data/io/json.h"
#include "parallel/world.h"

/// What `temper doctor` says of several ranks: {"ranks": [...], "axes": [...], "odd": [...]}.
namespace temper::launch {

/// Measures, in some seconds: each rank's place, cores, versions, clock and product rate, the links
/// along the axes of a mesh (in a host, between hosts), and what is odd about it all, each with
/// what mends it. Rank 0 gets the report, the others null. Collective.
data::Json report_ranks(parallel::Session& session);

void print_ranks(const data::Json& report);

}  // namespace temper::launch
