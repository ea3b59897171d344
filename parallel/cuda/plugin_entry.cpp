#include <cuda_runtime_api.h>

#include "parallel/cuda/graph.h"
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

void* allocate_unified(size_t bytes) {
  void* memory = nullptr;
  if (cudaMallocManaged(&memory, bytes) == cudaSuccess) return memory;
  cudaGetLastError();  // or the next kernel would be said to have failed
  return nullptr;
}

void free_unified(void* memory) { cudaFree(memory); }

// A hint: whatever comes of it, the pages are there when they are used.
void prefetch_unified(const void* memory, size_t bytes, int device, CUstream_st* stream) {
  int one_by_one = 0;  // else all of it is brought at a kernel's start (WSL)
  cudaDeviceGetAttribute(&one_by_one, cudaDevAttrConcurrentManagedAccess, device);
  if (one_by_one == 0) return;
#if CUDART_VERSION >= 13000
  const cudaMemLocation to = {.type = cudaMemLocationTypeDevice, .id = device};
  const cudaError_t error = cudaMemPrefetchAsync(memory, bytes, to, /*flags=*/0, stream);
#else
  const cudaError_t error = cudaMemPrefetchAsync(memory, bytes, device, stream);
#endif
  if (error != cudaSuccess) cudaGetLastError();
}

int compute_capability(int device) {
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return 10 * major + minor;
}

}  // namespace

}  // namespace temper::parallel

extern "C" const temper::parallel::CudaPlugin* temper_cuda_plugin() {
  using namespace temper::parallel;
  static const CudaPlugin plugin = {.device_count = device_count,
                                    .device_name = device_name,
                                    .compute_capability = compute_capability,
                                    .make_communicator = make_nccl_communicator,
                                    .allocate_unified = allocate_unified,
                                    .free_unified = free_unified,
                                    .prefetch_unified = prefetch_unified,
                                    .record = record_graph};
  return &plugin;
}
