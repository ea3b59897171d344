#include "trainer/metrics/memory.h"

#include <sys/resource.h>

namespace temper::trainer {

double peak_memory_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;  // Linux counts KiB
}

}  // namespace temper::trainer
