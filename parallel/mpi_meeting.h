#pragma once

#include <memory>
#include <vector>

#include "parallel/meeting.h"
#include "parallel/world.h"

namespace temper::parallel {

/// Starts MPI, which fills in the ranks of `world` (it knows its host). `cores`: what this process
/// is allowed; afterwards its share among the ranks of its host. `launched_ranks`: what the
/// launcher says it has started, or 0. Throws UserError where the launcher is of another MPI; ends
/// the process where MPI has not started within `timeout_seconds`.
std::unique_ptr<Meeting> meet_by_mpi(World& world, std::vector<int>& cores, int launched_ranks,
                                     double timeout_seconds);

}  // namespace temper::parallel
