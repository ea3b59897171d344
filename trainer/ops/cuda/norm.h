#pragma once

#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

/// RMSNorm, and LayerNorm, which is the same around the mean and with a bias: their kernels.
namespace temper::trainer::cuda {

// Short vectors (heads) have a warp each, long ones a block.
constexpr int64_t kOfAWarp = 1024;
constexpr int64_t kSharedSums = 8192;
// Blocks of the backward, at most: each has its own sum of weight gradients.
constexpr int64_t kBlocks = 256;

template <int kLanes>
__device__ float group_sum(float x, float* of_warps) {
  if constexpr (kLanes == kWarp) return warp_sum(x);
  return block_sum(x, of_warps);
}

/// `kCentred`: LayerNorm.
template <class T, int kLanes, int kWide, bool kCentred>
__global__ void norm_kernel(NormView v) {
  __shared__ float of_warps[kThreads / kWarp];
  const int64_t vector = thread_number() / kLanes;
  if (vector >= v.rows * v.heads) return;
  const int64_t row = vector / v.heads, head = vector % v.heads;
  const T* x = static_cast<const T*>(v.x) + row * v.stride_x + head * v.dim;
  T* y = static_cast<T*>(v.y) + row * v.stride_y + head * v.dim;
  const int64_t first = static_cast<int64_t>(threadIdx.x) % kLanes * kWide;
  float mean = 0;
  if constexpr (kCentred) {
    float total = 0;
    for (int64_t i = first; i < v.dim; i += kLanes * kWide) {
      const auto pack = load_pack<kWide>(x + i);
      for (int k = 0; k < kWide; ++k) total += widened(pack.at[k]);
    }
    mean = group_sum<kLanes>(total, of_warps) / static_cast<float>(v.dim);
    if (first == 0) v.mean[vector] = mean;
  }
  float squares = 0;
  for (int64_t i = first; i < v.dim; i += kLanes * kWide) {
    const auto pack = load_pack<kWide>(x + i);
    for (int k = 0; k < kWide; ++k)
      squares += (widened(pack.at[k]) - mean) * (widened(pack.at[k]) - mean);
  }
  squares = group_sum<kLanes>(squares, of_warps);
  const float rstd = 1.0f / sqrtf(squares / static_cast<float>(v.dim) + v.eps);
  if (first == 0) v.rstd[vector] = rstd;
  for (int64_t i = first; i < v.dim; i += kLanes * kWide) {
    const auto pack = load_pack<kWide>(x + i);
    const auto weight = load_pack<kWide>(static_cast<const T*>(v.weight) + i);
    Pack<T, kWide> bias{}, out;
    if constexpr (kCentred) bias = load_pack<kWide>(static_cast<const T*>(v.bias) + i);
    for (int k = 0; k < kWide; ++k) {
      float value = (widened(pack.at[k]) - mean) * rstd * widened(weight.at[k]);
      if constexpr (kCentred) value += widened(bias.at[k]);
      rounded_store(&out.at[k], value);
    }
    store_pack(y + i, out);
  }
}

// A block's vectors follow each other at a distance; it keeps its sum of dy xhat in shared memory
// where that fits, an element of the same place in each pack beside the next pack's (lanes then use
// different banks), else in its row of `partial`.
template <class T, int kLanes, int kWide, bool kCentred>
__global__ void norm_backward_kernel(NormBackwardView v) {
  __shared__ float of_warps[kThreads / kWarp];
  __shared__ float shared_sums[kSharedSums];
  constexpr int kVectors = kThreads / kLanes;
  const bool shared = v.dim <= kSharedSums / kVectors;
  const int64_t packs = v.dim / kWide;
  const int slot = static_cast<int>(threadIdx.x) / kLanes;
  float* sums = shared ? shared_sums + slot * v.dim : v.partial + blockIdx.x * v.dim;
  const auto place = [&](int64_t i, int k) { return shared ? k * packs + i / kWide : i + k; };
  const int64_t first = static_cast<int64_t>(threadIdx.x) % kLanes * kWide;
  for (int64_t i = first; i < v.dim; i += kLanes * kWide)
    for (int k = 0; k < kWide; ++k) sums[place(i, k)] = 0;
  const T* weight = static_cast<const T*>(v.weight);
  for (int64_t vector = int64_t{blockIdx.x} * kVectors + slot; vector < v.rows * v.heads;
       vector += int64_t{gridDim.x} * kVectors) {
    const int64_t row = vector / v.heads, offset = vector % v.heads * v.dim;
    const T* dy = static_cast<const T*>(v.dy) + row * v.stride_dy + offset;
    const T* x = static_cast<const T*>(v.x) + row * v.stride_x + offset;
    T* dx = static_cast<T*>(v.dx) + row * v.stride_dx + offset;
    const T* residual = static_cast<const T*>(v.residual);
    if (residual) residual += row * v.stride_dx + offset;
    const float rstd = v.rstd[vector];
    float centre = 0, total = 0, dots = 0;
    if constexpr (kCentred) centre = v.mean[vector];
    for (int64_t i = first; i < v.dim; i += kLanes * kWide) {
      const auto d = load_pack<kWide>(dy + i), in = load_pack<kWide>(x + i);
      const auto w = load_pack<kWide>(weight + i);
      for (int k = 0; k < kWide; ++k) {
        const float xhat = (widened(in.at[k]) - centre) * rstd;
        if constexpr (kCentred) total += widened(d.at[k]) * widened(w.at[k]);
        dots += widened(d.at[k]) * widened(w.at[k]) * xhat;
        sums[place(i, k)] += widened(d.at[k]) * xhat;
      }
    }
    const float along = group_sum<kLanes>(dots, of_warps) / static_cast<float>(v.dim);
    float mean = 0;
    if constexpr (kCentred) mean = group_sum<kLanes>(total, of_warps) / static_cast<float>(v.dim);
    for (int64_t i = first; i < v.dim; i += kLanes * kWide) {
      const auto d = load_pack<kWide>(dy + i), in = load_pack<kWide>(x + i);
      const auto w = load_pack<kWide>(weight + i);
      Pack<T, kWide> also{}, out;
      if (residual) also = load_pack<kWide>(residual + i);
      for (int k = 0; k < kWide; ++k) {
        const float own = widened(d.at[k]) * widened(w.at[k]) - mean -
                          (widened(in.at[k]) - centre) * rstd * along;
        rounded_store(&out.at[k], own * rstd + (residual ? widened(also.at[k]) : 0.0f));
      }
      store_pack(dx + i, out);
    }
  }
  if (!shared) return;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < v.dim; i += kThreads) {
    float sum = 0;
    for (int s = 0; s < kVectors; ++s)
      sum += shared_sums[s * v.dim + i % kWide * packs + i / kWide];
    v.partial[blockIdx.x * v.dim + i] = sum;
  }
}

inline int64_t blocks_for(int64_t vectors, int64_t dim) {
  const int64_t a_block = dim <= kOfAWarp ? kThreads / kWarp : 1;
  return (vectors + a_block - 1) / a_block;
}

template <bool kCentred>
int norm(Element type, const NormView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const bool in_line = aligned(v.x) && aligned(v.y) && aligned(v.weight) && aligned(v.bias);
    return with_width<T>(in_line, v.dim | v.stride_x | v.stride_y, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      const int64_t blocks = blocks_for(v.rows * v.heads, v.dim);
      return v.dim <= kOfAWarp
                 ? launch(norm_kernel<T, kWarp, kWide, kCentred>, blocks, stream, v)
                 : launch(norm_kernel<T, kThreads, kWide, kCentred>, blocks, stream, v);
    });
  });
}

template <bool kCentred>
int norm_backward(Element type, const NormBackwardView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const bool in_line =
        aligned(v.dy) && aligned(v.x) && aligned(v.weight) && aligned(v.dx) && aligned(v.residual);
    const int64_t sizes = v.dim | v.stride_dy | v.stride_x | v.stride_dx;
    return with_width<T>(in_line, sizes, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      const int64_t blocks = norm_partials(v.rows * v.heads, v.dim);
      return v.dim <= kOfAWarp
                 ? launch(norm_backward_kernel<T, kWarp, kWide, kCentred>, blocks, stream, v)
                 : launch(norm_backward_kernel<T, kThreads, kWide, kCentred>, blocks, stream, v);
    });
  });
}

}  // namespace temper::trainer::cuda
