#pragma once

#include <cstdint>
#include <string>

#include <nccl.h>

/// What nccl_communicator.cpp needs of NCCL and of the CUDA runtime, in the place of the real ones:
/// ranks are threads of this process, the device's memory is the host's, and an exchange is done
/// when the last of its ranks has called. Calls end the process where NCCL's would be undefined: on
/// a communicator that is aborted, or not ready, or that blocks, and for memory that is registered
/// or forgotten twice.
namespace fake_nccl {

/// Forgets all communicators and what was asked for below; nothing may be alive.
void reset();

/// From now on NCCL reports `error` of `rank`'s communicators, when it is asked for it.
void fail_later(int rank, ncclResult_t error, const std::string& detail);
/// The next exchange that `rank` starts is refused with `error`.
void refuse(int rank, ncclResult_t error);
/// Exchanges from now on are taken, and never done.
void stall();
/// From now on `rank`'s memory cannot be registered.
void refuse_memory(int rank);

int64_t communicators();  // alive
int64_t aborts();
int64_t registered();     // pieces of memory, now
int64_t registrations();  // so far
int64_t events();  // alive
/// The device that a call was made on is this one, else the process ends.
void expect_device(int device);

}  // namespace fake_nccl
