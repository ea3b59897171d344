#pragma once

#include <ATen/core/Tensor.h>

/// Where the operators of these tests run. Two programs are made of the same tests: one has CUDA's
/// device 0 and skips every test where there is none; the other, anywhere, the kernels' files
/// compiled for the host (emulator/), put in the place of the CPU's loops.
namespace temper::trainer {

/// Empty, or why there is no device.
const std::string& missing_device();

/// Of tensors under test.
at::Device test_device();

/// While one lives, tensors on test_device() go through the device's kernels. (CUDA's always do; on
/// the CPU an operator called without one is the reference.)
class OnDevice {
 public:
  OnDevice();
  ~OnDevice();
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
};

}  // namespace temper::trainer

// The same tests run in emulation where there is no device (gpu_emulated_test).
#define TEMPER_NEEDS_DEVICE()                       \
  if (!::temper::trainer::missing_device().empty()) \
  GTEST_SKIP() << ::temper::trainer::missing_device()
