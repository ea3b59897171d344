#pragma once

#include <cstddef>

#include <c10/core/CachingDeviceAllocator.h>

/// Memory of the emulated device: pages that the process may not touch, but while the device works.
/// Whoever reads a tensor of the device as if it were the host's ends with a segmentation fault, as
/// on a real one.
namespace temper::emulator {

/// While one lives, the device works. They nest, on any threads.
class Working {
 public:
  Working();
  ~Working();
  Working(const Working&) = delete;
  Working& operator=(const Working&) = delete;
};

/// Of tensors on the device.
c10::DeviceAllocator& device_memory();

/// Of tensors of the host that the device copies from and to.
c10::Allocator& pinned_memory();
bool is_pinned(const void* address);

}  // namespace temper::emulator
