#include <cuda_runtime_api.h>

#include "parallel/cuda/nccl_communicator.h"
#include "parallel/plugin.h"

namespace temper::parallel {

namespace {

int device_count(std::string& reason) {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error == cudaSuccess && devices > 0) return devices;
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
    reason = "no NVIDIA driver found";
  } else if (error == cudaSuccess) {
    reason = "the driver shows none (CUDA_VISIBLE_DEVICES?)";
  } else {
    reason = cudaGetErrorString(error);
  }
  return 0;
}

std::string device_name(int device) {
  cudaDeviceProp properties{};
  return cudaGetDeviceProperties(&properties, device) == cudaSuccess ? properties.name : "";
}

}  // namespace

}  // namespace temper::parallel

extern "C" const temper::parallel::CudaPlugin* temper_cuda_plugin() {
  using namespace temper::parallel;
  static const CudaPlugin plugin = {.device_count = device_count,
                                    .device_name = device_name,
                                    .make_communicator = make_nccl_communicator};
  return &plugin;
}
