#pragma once

#include <optional>
#include <string>

/// What this machine's CPU reaches, as `temper doctor` measured it: the denominator of `mfu` on a
/// CPU, where no data sheet has one. Kept in ~/.cache/temper/peaks.json by CPU model and number of
/// threads.
namespace temper::trainer {

struct DevicePeak {
  double fp32_flops = 0;  // per second, of a 2048^3 product
  double bf16_flops = 0;
  double copy_bytes_per_second = 0;  // read + written
};

/// "AMD EPYC 9R14"; "unknown CPU" where /proc/cpuinfo does not say.
std::string cpu_model();

/// FLOP/s of products in bfloat16 or float32 on `threads` threads; unset when doctor has not run
/// here with that number of threads.
std::optional<double> stored_peak_flops(int threads, bool bf16);

/// Adds to the file, creating it; of several measurements the best is kept. Throws RunError when it
/// cannot be written.
void store_peak(int threads, const DevicePeak& peak);

}  // namespace temper::trainer
