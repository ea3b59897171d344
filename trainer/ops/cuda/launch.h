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

/// Starts `blocks` blocks of kBlock threads. Returns cudaGetLastError().
template <int kBlock = kThreads, class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), int64_t blocks, [[maybe_unused]] CUstream_st* stream,
           Arguments... arguments) {
  if (blocks <= 0) return 0;
#ifdef __CUDACC__
  kernel<<<static_cast<unsigned>(blocks), kBlock, 0, stream>>>(Parameters(arguments)...);
  return cudaGetLastError();
#else
  return emulator::launch(blocks, kBlock, [=] { kernel(Parameters(arguments)...); });
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

/// Many sums in few exchanges: over the warp's lanes that are the same modulo kApart, the sum of
/// x[j] in the lanes from j * kWarp / kCount on, before those of j + 1. A lane hands on what it
/// does not keep, half of it at a time.
template <int kCount, int kApart = 1, class T>
__device__ T scattered_sum(T (&x)[kCount]) {
  static_assert(kCount * kApart <= kWarp, "lanes for all");
  int apart = kWarp / 2;
  for (int half = kCount / 2; half > 0; half /= 2, apart /= 2) {
    const bool upper = (lane() & apart) != 0;
    for (int j = 0; j < half; ++j) {
      const T given = upper ? x[j] : x[j + half];
      x[j] = (upper ? x[j + half] : x[j]) + __shfl_xor_sync(kAllLanes, given, apart);
    }
  }
  for (; apart >= kApart; apart /= 2) x[0] += __shfl_xor_sync(kAllLanes, x[0], apart);
  return x[0];
}

/// warp_sum and warp_max over a whole block of kBlock threads; `of_warps` is shared, and free again
/// on return.
template <int kBlock = kThreads, class T>
__device__ T block_sum(T x, T* of_warps) {
  x = warp_sum(x);
  if (lane() == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  T sum = 0;
  for (int warp = 0; warp < kBlock / kWarp; ++warp) sum += of_warps[warp];
  __syncthreads();
  return sum;
}
template <int kBlock = kThreads>
__device__ float block_max(float x, float* of_warps) {
  x = warp_max(x);
  if (lane() == 0) of_warps[threadIdx.x / kWarp] = x;
  __syncthreads();
  for (int warp = 0; warp < kBlock / kWarp; ++warp) x = fmaxf(x, of_warps[warp]);
  __syncthreads();
  return x;
}

}  // namespace temper::trainer::cuda
