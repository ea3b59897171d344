#pragma once

#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"
#include "parallel/world.h"
#include "recipes/recipe.h"

/// From train.device (or --device) to a device that is ready.
namespace temper::launch {

struct ComputeDevice {
  at::Device device = at::kCPU;
  std::string statement{};  // where "auto" has led to; else empty
};

/// Chooses this rank's device (parallel/device.h) and makes it and its kernels the current ones.
/// `deterministic`: trainer/ops/device.h. Before any LibTorch call. Throws UserError. Collective.
ComputeDevice open_device(parallel::Session& session, recipes::Device wanted, bool deterministic);

/// The group of all ranks, for tensors of the host and of `device`. Collective.
std::unique_ptr<parallel::Communicator> open_communicator(parallel::Session& session,
                                                          double timeout_seconds,
                                                          at::Device device);

}  // namespace temper::launch
