// Compiled without contraction of products and sums (trainer/ops/cuda/CMakeLists.txt).
#include <cuda_runtime_api.h>

#include "trainer/ops/cuda/kernels.h"

namespace temper::trainer::cuda {

namespace {

constexpr int kThreads = static_cast<int>(kElementsOf8Bits);
constexpr int kWarp = 32;

// The largest of the block's 256 numbers, in every thread. (A maximum has no order.)
__device__ float largest_of_block(float x, float* of_warps) {
  for (int width = kWarp / 2; width > 0; width /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, width));
  if (threadIdx.x % kWarp == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  for (int warp = 0; warp < kThreads / kWarp; ++warp) x = fmaxf(x, of_warps[warp]);
  __syncthreads();
  return x;
}

// A block of threads a block of moments, a thread an element.
__global__ void adamw_8bit_kernel(AdamW8bitView tensor, AdamWStep step) {
  __shared__ float of_warps[kThreads / kWarp];
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const bool mine = i < tensor.count;
  const NewMoments moments = mine ? update_element(tensor, step, i) : NewMoments{0, 0};
  const float m_peak = largest_of_block(fabsf(moments.m), of_warps);
  const float v_peak = largest_of_block(fabsf(moments.v), of_warps);
  if (mine) store_element(tensor, i, moments, m_peak, v_peak);
}

}  // namespace

int adamw_8bit(const AdamW8bitView& tensor, const AdamWStep& step, CUstream_st* stream) {
  const auto blocks = static_cast<unsigned>((tensor.count + kThreads - 1) / kThreads);
  if (blocks == 0) return 0;
  adamw_8bit_kernel<<<blocks, kThreads, 0, stream>>>(tensor, step);
  return cudaGetLastError();
}

}  // namespace temper::trainer::cuda
