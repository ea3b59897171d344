#pragma once

#include <cuda_runtime_api.h>

#include "trainer/ops/cuda/elements.h"

/// What the kernels' files share: launches, sums within a block, types chosen at run time.
/// tests/gpu/emulator compiles the same files for the host, where `cuda_runtime_api.h` is its own.
namespace temper::trainer::cuda {

/// Before a loop through an array that is to stay in registers, where the compiler finds its body
/// too long to unroll it by itself.
#ifdef __CUDACC__
#define TEMPER_UNROLL _Pragma("unroll")
#else
#define TEMPER_UNROLL
#endif

constexpr int kThreads = 256;  // a block
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

/// Blocks of kThreads for `threads` threads.
inline int64_t blocks_of(int64_t threads) { return (threads + kThreads - 1) / kThreads; }

/// Starts `blocks` blocks of kThreads. Returns cudaGetLastError().
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), int64_t blocks, [[maybe_unused]] CUstream_st* stream,
           Arguments... arguments) {
  if (blocks <= 0) return 0;
#ifdef __CUDACC__
  kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(Parameters(arguments)...);
  return cudaGetLastError();
#else
  return emulator::launch(blocks, kThreads, [=] { kernel(Parameters(arguments)...); });
#endif
}

/// f(T{}) with T the type of `element`.
template <class F>
int with_element(Element element, F&& f) {
  if (element == Element::kFloat32) return f(float{});
  if (element == Element::kBfloat16) return f(Bf16Bits{});
  return f(F16Bits{});
}

/// f(W<n>) with packs of 16 bytes where `sizes` (counts of elements of T) are multiples of them and
/// `pointers` aligned, else of one element.
template <int kCount>
struct Width {
  static constexpr int value = kCount;
};
inline bool aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
template <class T, class F>
int with_width(bool all_aligned, int64_t common_divisor, F&& f) {
  if (all_aligned && common_divisor % kFullPack<T> == 0) return f(Width<kFullPack<T>>{});
  return f(Width<1>{});
}

__device__ inline int64_t thread_number() {
  return int64_t{blockIdx.x} * kThreads + static_cast<int64_t>(threadIdx.x);
}
__device__ inline int lane() { return static_cast<int>(threadIdx.x) % kWarp; }

/// The sum of a warp's x in every lane, in a tree that is always the same.
template <class T>
__device__ T warp_sum(T x) {
  for (int width = kWarp / 2; width > 0; width /= 2) x += __shfl_xor_sync(kAllLanes, x, width);
  return x;
}
__device__ inline float warp_max(float x) {
  for (int width = kWarp / 2; width > 0; width /= 2)
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, width));
  return x;
}

/// The same over the whole block; `of_warps` is shared, and free again on return.
template <class T>
__device__ T block_sum(T x, T* of_warps) {
  x = warp_sum(x);
  if (lane() == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  T sum = 0;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) sum += of_warps[warp];
  __syncthreads();
  return sum;
}
__device__ inline float block_max(float x, float* of_warps) {
  x = warp_max(x);
  if (lane() == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  for (int warp = 0; warp < kThreads / kWarp; ++warp) x = fmaxf(x, of_warps[warp]);
  __syncthreads();
  return x;
}

}  // namespace temper::trainer::cuda
