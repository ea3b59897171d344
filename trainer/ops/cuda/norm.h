#pragma once

#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

/// RMSNorm, and LayerNorm, which is the same around the mean and with a bias: their kernels.
namespace temper::trainer::cuda {

// Short vectors (heads) have a warp each, long ones a block.
constexpr int64_t kOfAWarp = 1024;
// What the backward's blocks keep in registers.
constexpr int64_t kOfABlock = 8192;
// Blocks of the backward, at most: each has its own sum of weight gradients, which is written and
// read again. They are about as many as large GPUs run at a time (an H200 528 of 64 registers); of
// short vectors, whose sums are small, twice that.
constexpr int64_t kBlocks = 512;

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

// A vector of the backward.
template <class T, bool kCentred>
struct BackwardVector {
  const T *dy, *x, *residual;
  T* dx;
  float centre = 0, rstd;

  __device__ BackwardVector(const NormBackwardView& v, int64_t vector) {
    // 32 bits divide quickly, and there is no memory for more vectors.
    const auto number = static_cast<uint32_t>(vector), heads = static_cast<uint32_t>(v.heads);
    const int64_t row = number / heads, offset = number % heads * v.dim;
    dy = static_cast<const T*>(v.dy) + row * v.stride_dy + offset;
    x = static_cast<const T*>(v.x) + row * v.stride_x + offset;
    dx = static_cast<T*>(v.dx) + row * v.stride_dx + offset;
    residual = static_cast<const T*>(v.residual);
    if (residual) residual += row * v.stride_dx + offset;
    rstd = v.rstd[vector];
    if constexpr (kCentred) centre = v.mean[vector];
  }
};

// As registers for `bytes` of three vectors in each thread, and for the sums, allow.
constexpr int blocks_at_a_time(size_t bytes, bool centred) {
  return bytes > 32 ? static_cast<int>(128 / bytes) : centred ? 3 : 4;
}

// A block's vectors follow each other at a distance. A thread always has the same places of them,
// kOwn at most, and keeps their sums of dy xhat to the end; what it needs of a vector it reads once
// and before it waits for the others.
template <class T, int kLanes, int kWide, int kOwn, bool kCentred>
__global__ void __launch_bounds__(kThreads, blocks_at_a_time(kOwn * sizeof(T), kCentred))
    norm_backward_kernel(NormBackwardView v) {
  constexpr int kPacks = kOwn / kWide, kVectors = kThreads / kLanes;
  __shared__ float of_warps[kThreads / kWarp];
  const int slot = static_cast<int>(threadIdx.x) / kLanes;
  const int first = static_cast<int>(threadIdx.x) % kLanes * kWide;
  const int dim = static_cast<int>(v.dim);
  const auto place = [&](int p) { return first + p * kLanes * kWide; };
  const T* weight = static_cast<const T*>(v.weight);
  Pack<float, 4> sums[kPacks][kWide / 4] = {};
  for (int64_t vector = int64_t{blockIdx.x} * kVectors + slot; vector < v.rows * v.heads;
       vector += int64_t{gridDim.x} * kVectors) {
    const BackwardVector<T, kCentred> own(v, vector);
    Pack<T, kWide> dy[kPacks], x[kPacks], residual[kPacks];
    for (int p = 0; p < kPacks; ++p) {
      if (place(p) >= dim) continue;
      dy[p] = load_pack<kWide>(own.dy + place(p));
      x[p] = load_pack<kWide>(own.x + place(p));
      if (own.residual) residual[p] = load_pack<kWide>(own.residual + place(p));
    }
    float total = 0, dots = 0;
    for (int p = 0; p < kPacks; ++p) {
      if (place(p) >= dim) continue;
      const auto w = load_pack<kWide>(weight + place(p));
      for (int k = 0; k < kWide; ++k) {
        const float d = widened(dy[p].at[k]) * widened(w.at[k]);
        const float xhat = (widened(x[p].at[k]) - own.centre) * own.rstd;
        if constexpr (kCentred) total += d;
        dots += d * xhat;
        sums[p][k / 4].at[k % 4] += widened(dy[p].at[k]) * xhat;
      }
    }
    const float along = group_sum<kLanes>(dots, of_warps) / static_cast<float>(v.dim);
    float mean = 0;
    if constexpr (kCentred) mean = group_sum<kLanes>(total, of_warps) / static_cast<float>(v.dim);
    for (int p = 0; p < kPacks; ++p) {
      if (place(p) >= dim) continue;
      const auto w = load_pack<kWide>(weight + place(p));
      Pack<T, kWide> dx;
      for (int k = 0; k < kWide; ++k) {
        const float d = widened(dy[p].at[k]) * widened(w.at[k]);
        const float xhat = (widened(x[p].at[k]) - own.centre) * own.rstd;
        const float also = own.residual ? widened(residual[p].at[k]) : 0.0f;
        rounded_store(&dx.at[k], (d - mean - xhat * along) * own.rstd + also);
      }
      store_pack(own.dx + place(p), dx);
    }
  }
  float* partial = v.partial + blockIdx.x * v.dim;
  if constexpr (kVectors == 1) {
    for (int p = 0; p < kPacks; ++p)
      for (int k = 0; k < kWide; k += 4)
        if (place(p) < dim) store_pack(partial + place(p) + k, sums[p][k / 4]);
  } else {
    alignas(16) __shared__ float of_slots[kVectors][kLanes * kOwn];
    for (int p = 0; p < kPacks; ++p)
      for (int k = 0; k < kWide; k += 4)
        store_pack(&of_slots[slot][place(p) + k], sums[p][k / 4]);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < dim; i += kThreads) {
      float sum = 0;
      for (int s = 0; s < kVectors; ++s) sum += of_slots[s][i];
      partial[i] = sum;
    }
  }
}

// The same for vectors of any length, a block each: what is too much for registers is read twice,
// and sums are kept in the block's row of `partial`.
template <class T, int kWide, bool kCentred>
__global__ void any_norm_backward_kernel(NormBackwardView v) {
  __shared__ float of_warps[kThreads / kWarp];
  const int64_t first = int64_t{threadIdx.x} * kWide;
  constexpr int64_t kStep = kThreads * kWide;
  const T* weight = static_cast<const T*>(v.weight);
  float* sums = v.partial + blockIdx.x * v.dim;
  for (int64_t i = first; i < v.dim; i += kStep)
    for (int k = 0; k < kWide; ++k) sums[i + k] = 0;
  for (int64_t vector = blockIdx.x; vector < v.rows * v.heads; vector += gridDim.x) {
    const BackwardVector<T, kCentred> own(v, vector);
    float total = 0, dots = 0;
    for (int64_t i = first; i < v.dim; i += kStep) {
      const auto dy = load_pack<kWide>(own.dy + i), x = load_pack<kWide>(own.x + i);
      const auto w = load_pack<kWide>(weight + i);
      for (int k = 0; k < kWide; ++k) {
        const float d = widened(dy.at[k]) * widened(w.at[k]);
        const float xhat = (widened(x.at[k]) - own.centre) * own.rstd;
        if constexpr (kCentred) total += d;
        dots += d * xhat;
        sums[i + k] += widened(dy.at[k]) * xhat;
      }
    }
    const float along = block_sum(dots, of_warps) / static_cast<float>(v.dim);
    float mean = 0;
    if constexpr (kCentred) mean = block_sum(total, of_warps) / static_cast<float>(v.dim);
    for (int64_t i = first; i < v.dim; i += kStep) {
      const auto dy = load_pack<kWide>(own.dy + i), x = load_pack<kWide>(own.x + i);
      const auto w = load_pack<kWide>(weight + i);
      Pack<T, kWide> residual{}, dx;
      if (own.residual) residual = load_pack<kWide>(own.residual + i);
      for (int k = 0; k < kWide; ++k) {
        const float d = widened(dy.at[k]) * widened(w.at[k]);
        const float xhat = (widened(x.at[k]) - own.centre) * own.rstd;
        const float also = own.residual ? widened(residual.at[k]) : 0.0f;
        rounded_store(&dx.at[k], (d - mean - xhat * along) * own.rstd + also);
      }
      store_pack(own.dx + i, dx);
    }
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

template <class T, int kLanes, int kWide, bool kCentred>
int norm_backward_of(const NormBackwardView& v, int64_t blocks, CUstream_st* stream) {
  return v.dim <= kLanes * 8
             ? launch(norm_backward_kernel<T, kLanes, kWide, 8, kCentred>, blocks, stream, v)
         : v.dim <= kLanes * 16
             ? launch(norm_backward_kernel<T, kLanes, kWide, 16, kCentred>, blocks, stream, v)
             : launch(norm_backward_kernel<T, kLanes, kWide, 32, kCentred>, blocks, stream, v);
}

template <bool kCentred>
int norm_backward(Element type, const NormBackwardView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const bool in_line = aligned(v.dy) && aligned(v.x) && aligned(v.weight) && aligned(v.dx) &&
                         aligned(v.residual) && aligned(v.partial);
    const int64_t sizes = v.dim | v.stride_dy | v.stride_x | v.stride_dx;
    return with_width<T>(in_line, sizes, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      const int64_t blocks = norm_partials(v.rows * v.heads, v.dim);
      if constexpr (kWide > 1) {
        if (v.dim <= kOfAWarp)
          return norm_backward_of<T, kWarp, kWide, kCentred>(v, blocks, stream);
        if (v.dim <= kOfABlock)
          return norm_backward_of<T, kThreads, kWide, kCentred>(v, blocks, stream);
      }
      return launch(any_norm_backward_kernel<T, kWide, kCentred>, blocks, stream, v);
    });
  });
}

}  // namespace temper::trainer::cuda
