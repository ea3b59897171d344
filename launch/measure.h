#pragma once

#include "trainer/metrics/device_peak.h"

namespace temper::parallel {
class Communicator;
}

/// Rates of this machine, measured in about two seconds. The threads are LibTorch's.
namespace temper::launch {

/// Median of repeated 2048^3 products in float32 and bfloat16, and of copies of 256 MiB.
trainer::DevicePeak measure_cpu();

struct LinkRates {
  double all_reduce_bytes_per_second = 0;  // of a 64 MiB float32 tensor: its bytes / time
  double latency_seconds = 0;              // of one float
};

/// Collective.
LinkRates measure_all_reduce(parallel::Communicator& communicator);

}  // namespace temper::launch
