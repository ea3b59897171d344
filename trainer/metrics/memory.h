#pragma once

#include <cstdint>
#include <string>

namespace temper::trainer {

/// Largest resident set of this process so far, in MiB (getrusage).
double peak_memory_mib();

/// A line of /proc/meminfo in bytes: "MemAvailable" is what could be allocated without swapping; 0
/// where there is none.
int64_t meminfo_bytes(const std::string& name);

}  // namespace temper::trainer
