#pragma once

#include "parallel/communicator.h"
#include "parallel/world.h"

/// Tests of several ranks share one session and one group of all of them, made by main() in
/// mpi_main.cpp: under mpirun, or where TEMPER_TEST_RENDEZVOUS says (without_mpi.sh starts them).
namespace temper::parallel {

Session& test_session();
Communicator& test_group();

}  // namespace temper::parallel
