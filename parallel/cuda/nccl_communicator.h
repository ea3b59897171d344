#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.h"

namespace temper::parallel {

/// Collectives for CUDA tensors on `device`, over the ranks of `bootstrap`, which carries NCCL's
/// id, knows when a rank has stopped, and outlives them all. Any dtype that NCCL adds; calls that
/// only move bytes take every dtype.
///
/// A call starts behind what the current stream has been given, on a stream of the group's own, so
/// that computation goes on. wait() orders the current stream behind it and returns when it is
/// done, since only then is it known that no rank is lost: after the time-out, an error that NCCL
/// has noticed, or one that another rank has ended with (PeerStopped), the group is aborted and
/// every wait() throws RunError. Tags mean nothing:
/// sends and receives are done in the order of the calls, so of two ranks that exchange, one sends
/// first.
std::unique_ptr<Communicator> make_nccl_communicator(Communicator& bootstrap, int device,
                                                     const std::string& who,
                                                     double timeout_seconds);

}  // namespace temper::parallel
