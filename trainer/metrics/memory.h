#pragma once

namespace temper::trainer {

/// Largest resident set of this process so far, in MiB (getrusage).
double peak_memory_mib();

}  // namespace temper::trainer
