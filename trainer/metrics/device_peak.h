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

/// Unset when doctor has not run here with this number of threads (or the file cannot be read).
std::optional<DevicePeak> stored_peak(int threads);

/// Adds to the file, creating it; of several measurements the best is kept. Throws RunError when it
/// cannot be written.
void store_peak(int threads, const DevicePeak& peak);

}  // namespace temper::trainer
