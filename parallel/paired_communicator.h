#pragma once

#include <memory>

#include "parallel/communicator.h"

namespace temper::parallel {

/// One group over two wires: tensors of the host go by `host` (MPI), those on a device by `device`
/// (NCCL). So whoever exchanges something need not know where it is. Both are of the same ranks in
/// the same order; `host` outlives `device`.
std::unique_ptr<Communicator> make_paired_communicator(std::unique_ptr<Communicator> host,
                                                       std::unique_ptr<Communicator> device);

}  // namespace temper::parallel
