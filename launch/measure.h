#pragma once

#include <cstdint>

#include "trainer/metrics/device_peak.h"

namespace temper::parallel {
class Communicator;
}

/// Rates of this machine, measured in about two seconds. The threads are LibTorch's.
namespace temper::launch {

/// Median of repeated 2048^3 products in float32 and bfloat16, and of copies of 256 MiB.
trainer::DevicePeak measure_cpu();

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

/// Medians of some calls. Collective.
LinkTimes measure_link(parallel::Communicator& communicator);

}  // namespace temper::launch
