#pragma once

#include <cstddef>
#include <functional>
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

/// Work of a device that was recorded and is started again as a whole, with one call (CUDA graphs).
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  /// Does the work once more, on the same memory, with what that holds by then: behind what the
  /// device's current stream has been given, and without waiting for it.
  virtual void replay() = 0;
};

struct CudaPlugin {
  /// Devices that this process sees; 0 without a driver, and then `reason` says why.
  int (*device_count)(std::string& reason);
  /// As the driver names it: "NVIDIA H100 80GB HBM3"; "" where it does not say.
  std::string (*device_name)(int device);
  /// Of a device: 90 for 9.0.
  int (*compute_capability)(int device);
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
  /// Records what `work` gives the device to do, on whatever threads (backward has its own), and
  /// does nothing of it: what it makes holds nothing before the first replay().
  ///
  /// The graph knows memory by its address. Tensors from outside that the work reads or writes must
  /// live as long as the graph; memory that the work takes is the graph's own, and results of it
  /// may be read after each replay. `beside` (or null) lends its memory that is free again: the two
  /// are then replayed one after the other, which one stream does by itself.
  ///
  /// Throws where the work waits for the device or copies from or to the host. It has been done
  /// once before, in the same shapes: libraries make their handles and load their kernels then,
  /// which cannot be recorded. It is recorded on the current stream or, where that is the default
  /// one, on a stream aside.
  std::unique_ptr<DeviceGraph> (*record)(int device, const std::function<void()>& work,
                                         DeviceGraph* beside);
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
