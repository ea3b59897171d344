#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "trainer/metrics/device_rates.h"

namespace temper::parallel {
class Communicator;
}

/// Rates of this machine, measured in about two seconds. The threads are LibTorch's.
namespace temper::launch {

/// Of the CPU, or of a device that is ready (compute_device.h). What training does is measured with
/// Temper's own operators, with as many rows as take some milliseconds: a slow device has smaller
/// ones, and none of the widest products. The CPU's float16 is LibTorch's product alone.
trainer::DeviceRates measure_device(at::Device device);

/// The same of one rank among several, shorter: float32 products a second, bytes read and written
/// by copies of 64 MiB.
double measure_product();
double measure_copy();

constexpr int64_t kLinkBytes = int64_t{25} << 20;  // a bucket of gradients

struct LinkTimes {
  double latency_seconds = 0;     // all_reduce of one float
  double all_reduce_seconds = 0;  // of kLinkBytes
  double all_gather_seconds = 0;  // to kLinkBytes on each rank
};

/// Medians of some calls, of tensors of `device`. Collective.
LinkTimes measure_link(parallel::Communicator& communicator, at::Device device = at::kCPU);

}  // namespace temper::launch
