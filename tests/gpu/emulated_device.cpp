#include <string>

#include "tests/gpu/device.h"
#include "trainer/ops/device.h"

extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels();

namespace temper::trainer {

const std::string& missing_device() {
  static const std::string none;
  return none;
}

at::Device test_device() { return at::kCPU; }

OnDevice::OnDevice() { use_kernels(at::kCPU, temper_cuda_kernels()); }
OnDevice::~OnDevice() { use_kernels(at::kCPU, nullptr); }

}  // namespace temper::trainer
