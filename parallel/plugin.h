#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include <c10/core/DeviceType.h>

#include "parallel/communicator.h"

struct CUstream_st;

/// Everything CUDA is in a plugin, libtemper_cuda.so, so that a run on the CPU neither needs nor
/// loads CUDA's libraries.
///
/// The plugin calls nothing of temper's: it links no temper archive and uses only what headers
/// define, so that there is one copy of every registry. It gives its functions in one table,
/// through one C function.
namespace temper::parallel {

struct CudaPlugin {
  /// Devices that this process sees; 0 without a driver, and then `reason` says why.
  int (*device_count)(std::string& reason);
  /// As the driver names it: "NVIDIA H100 80GB HBM3"; "" where it does not say.
  std::string (*device_name)(int device);
  /// NCCL over the ranks of `bootstrap`, for tensors on `device` (see cuda/nccl_communicator.h).
  /// `who` names this rank in errors ("rank 3 on node2").
  std::unique_ptr<Communicator> (*make_communicator)(Communicator& bootstrap, int device,
                                                     const std::string& who,
                                                     double timeout_seconds);
  /// Memory that the device and the host share, on pages that the driver moves between them; null
  /// where there is none. prefetch brings pages to `device`, behind what `stream` has been given.
  void* (*allocate_unified)(size_t bytes);
  void (*free_unified)(void* memory);
  void (*prefetch_unified)(const void* memory, size_t bytes, int device, CUstream_st* stream);
  /// Of the tensors that they are for (a test has a device of its own).
  c10::DeviceType type = c10::DeviceType::CUDA;
};

using CudaPluginFunction = const CudaPlugin*();
constexpr const char* kCudaPluginSymbol = "temper_cuda_plugin";

/// Loads the plugin on the first call: $TEMPER_PLUGIN where that is set, else from ../lib beside the program.
/// Throws UserError where it is not built and where CUDA's libraries are missing.
const CudaPlugin& load_cuda_plugin();

/// What else the plugin gives: the address of one of its C functions, once it is loaded.
void* cuda_plugin_symbol(const char* name);

/// The plugin, and a device. The first call must come before any LibTorch call. Throws UserError as
/// load_cuda_plugin() does, and where there is no device.
const CudaPlugin& cuda_plugin();

}  // namespace temper::parallel
