#pragma once

#include <cstdint>
#include <span>

#include <ATen/core/Tensor.h>

#include "trainer/ops/cuda/kernels.h"

/// Where an operator's inner loops run: on the CPU those of cpu/kernels.h, on another device those
/// of cuda/kernels.h, which the plugin brings. An operator is one function for both:
///
///     if (const cuda::Kernels* device = kernels_for(x)) {
///       launch(x, device->swiglu, element_of(x), x.const_data_ptr(), ...);
///       return;
///     }
namespace temper::trainer {

/// Makes `kernels` those of all tensors on devices of `type` (null: none). Call it before any
/// operator runs there. A test may give kernels for the CPU.
void use_kernels(at::DeviceType type, const cuda::Kernels* kernels);

/// Loads the plugin, makes its device `index` the current one and its kernels those of that device,
/// which it returns; products are summed in float32. `deterministic`: the same bits each time, of
/// LibTorch's operators too. Before any LibTorch call. Throws UserError where plugin, driver or
/// device is missing (parallel/plugin.h).
at::Device use_cuda(int index, bool deterministic = true);

/// Of a CUDA device, 90 for 9.0; 0 on the CPU.
int compute_capability(at::Device device);

/// What this thread gives `device` from now on goes to a stream of its own instead of the default one, which cannot be recorded
/// (parallel/plugin.h); behind what the device has been given so far.
void use_own_stream(at::Device device);

/// `host` on `device`, without waiting for what that still does: copied from pinned memory.
at::Tensor sent_to(at::Device device, const at::Tensor& host);

/// Null: the CPU's own loops.
const cuda::Kernels* kernels_for(const at::Tensor& x);

cuda::Element element_of(at::ScalarType dtype);
inline cuda::Element element_of(const at::Tensor& x) { return element_of(x.scalar_type()); }

/// to[ids[i]] += rows[i] on a device, in an order that is always the same.
void add_at_rows(at::Tensor to, const at::Tensor& ids, const at::Tensor& rows);

/// Where a table of the host that never changes is on `device`; it is copied there the first time.
const float* table_on(at::Device device, std::span<const float> table);
const uint8_t* table_on(at::Device device, std::span<const uint8_t> table);

/// What is current on x's device; null on the CPU.
CUstream_st* stream_of(const at::Tensor& x);
/// Throws RunError where a launch has failed.
void check_launch(int error);

/// Starts a kernel on x's current stream.
template <class Kernel, class... Arguments>
void launch(const at::Tensor& x, Kernel kernel, const Arguments&... arguments) {
  check_launch(kernel(arguments..., stream_of(x)));
}

}  // namespace temper::trainer
