#pragma once

#include <optional>
#include <string>

#include "parallel/world.h"
#include "recipes/recipe.h"

/// Which device a rank computes on: one process a device, by its number on the host.
namespace temper::parallel {

struct DeviceChoice {
  std::optional<int> index;  // of CUDA's devices; unset: the CPU
  std::string why_not{};     // a device could be had, but for this ("auto" alone)
};

/// What train.device says, on this machine. "cuda": the plugin is loaded; throws UserError where
/// it, a driver or a device is missing. "auto": CUDA where all of them are there on every rank's
/// host, else the CPU. Either way a UserError where two ranks would share a device. Collective, but
/// for "cpu".
DeviceChoice choose_device(recipes::Device wanted, Session& session);

/// As choose_device() would choose for one rank, the name of that device; unset: the CPU, also where
/// "cuda" finds no device. Not collective.
std::optional<std::string> name_of_device(recipes::Device wanted);

/// Loads the plugin where choose_device() may want it: before MPI starts and before any LibTorch
/// call. Says nothing of what is missing; choose_device() will.
void load_plugin_early(recipes::Device wanted);

}  // namespace temper::parallel
