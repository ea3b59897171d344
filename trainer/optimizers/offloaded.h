#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "recipes/recipe.h"
#include "trainer/models/model.h"
#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {

struct OffloadOptions {
  // Go to the host too; else (adapters read them) they stay, and travel there and back each step.
  bool masters = true;
  int64_t group_elements = int64_t{1} << 24;  // that travel at once; a larger parameter goes alone
};

/// ZeRO-Offload (Ren et al. 2021, arXiv:2101.06840): the optimizer of build_optimizer() on the
/// host, for parameters on a device. Its states are in host memory, and with `masters` the float32
/// masters that are not the values themselves: `parameters[i].master` is there from now on, the
/// device's is given up.
///
/// A step brings gradients to the host, updates there with the CPU's kernels, and sends the new
/// values back in their own type: group after group, so that one is computed while the next one
/// comes and the one before goes. What travels is ordered in the device's current stream and lies
/// in pinned memory, two groups at a time. States have the names and types that they have without.
std::unique_ptr<Optimizer> build_offloaded_optimizer(const recipes::Optimizer& optimizer,
                                                     std::vector<Parameter>& parameters,
                                                     const OffloadOptions& options);

}  // namespace temper::trainer
