#pragma once

#include <cstddef>
#include <utility>
#include <vector>

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

/// What is taken while one is open stays reserved as long as it lives, whoever gives it back: the
/// memory of recorded work (recording.h). One is open at a time.
class RecordedMemory {
 public:
  RecordedMemory();  // opens it
  ~RecordedMemory();
  RecordedMemory(const RecordedMemory&) = delete;
  RecordedMemory& operator=(const RecordedMemory&) = delete;
  /// The device's other memory has the bytes again that it had when this was opened, its own NaN.
  void close();

 private:
  std::vector<size_t> own_;                                   // offsets
  std::vector<std::pair<size_t, std::vector<char>>> before_;  // of the others
};

/// Of tensors on the device.
c10::DeviceAllocator& device_memory();

/// Of tensors of the host that the device copies from and to.
c10::Allocator& pinned_memory();
bool is_pinned(const void* address);

}  // namespace temper::emulator
