#pragma once

#include "parallel/communicator.h"
#include "parallel/world.h"

/// Tests under mpirun share one session and one group of all ranks, made by main() in mpi_main.cpp.
namespace temper::parallel {

Session& test_session();
Communicator& test_group();

}  // namespace temper::parallel
