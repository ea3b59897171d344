#pragma once

#include <functional>
#include <memory>
#include <string>

#include <ATen/core/Tensor.h>

#include "parallel/plugin.h"

/// Work of a device that is recorded once and then started with one call (CUDA graphs): where there
/// are many small kernels, the host that starts them one by one is what the device waits for.
///
///     const at::Tensor in = at::zeros(..., device);    // lives as long as the graph
///     at::Tensor out;
///     const auto work = [&] { out = f(in); };
///     work();                                          // once before: libraries get ready
///     const auto graph = record(device, "f", work);    // does nothing of it
///     send_into(in, next);                             // or in.copy_(), of another tensor of the device
///     graph->replay();                                 // out = f(next), in the same memory
///
/// What is by value in a kernel's arguments stays what it was: all that changes is in tensors.
namespace temper::trainer {

using parallel::DeviceGraph;
using RecordFunction = decltype(parallel::CudaPlugin::record);

/// Makes `record` that of all devices of `type`, as use_kernels() does (device.h); null: none.
void use_graphs(at::DeviceType type, RecordFunction record);

/// Whether work of `device` can be recorded: not the CPU's, and none where TEMPER_CUDA_GRAPHS is 0.
bool can_record(at::Device device);

/// Records `work` (CudaPlugin::record says what it may be and what `beside` is). Throws RunError, a
/// line that begins with `what`, where it cannot be: the device is then in no state to go on.
std::unique_ptr<DeviceGraph> record(at::Device device, const std::string& what,
                                    const std::function<void()>& work,
                                    DeviceGraph* beside = nullptr);

/// Copies `host` to the first rows of `to`, which recorded work reads, without waiting for what its device still does.
void send_into(const at::Tensor& to, const at::Tensor& host);

}  // namespace temper::trainer
