#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.h"
#include "parallel/mpi_engine.h"

namespace temper::parallel {

/// Collectives for CPU tensors over `group`, which it never frees (freeing is collective, and an
/// error may destroy this on one rank alone). Calls that only move bytes take any dtype.
std::unique_ptr<Communicator> make_mpi_communicator(std::shared_ptr<MpiEngine> engine,
                                                    MPI_Comm group, const std::string& name,
                                                    double timeout_seconds);

}  // namespace temper::parallel
