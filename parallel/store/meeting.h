#pragma once

#include <memory>
#include <vector>

#include "parallel/meeting.h"
#include "parallel/store/rendezvous.h"
#include "parallel/world.h"
#include "recipes/rendezvous.h"

namespace temper::parallel {

/// Meets the other ranks at the store of `rendezvous`, which fills in `world` (it knows its host).
/// `cores`: what this process is allowed; afterwards its share among the ranks of its host. Throws
/// UserError for a rendezvous that fails (see store/rendezvous.h), for a rank that is there twice,
/// and where ranks have not come within `timeout_seconds`: which.
std::unique_ptr<Meeting> meet_by_store(const recipes::Rendezvous& rendezvous, const Place& place,
                                       World& world, std::vector<int>& cores,
                                       double timeout_seconds);

}  // namespace temper::parallel
