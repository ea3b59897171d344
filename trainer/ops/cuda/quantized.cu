// Compiled without contraction of products and sums (trainer/ops/cuda/CMakeLists.txt).
#include <cuda_runtime_api.h>

#include "trainer/ops/cuda/kernels.h"

namespace temper::trainer::cuda {

namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;

int blocks_of(int64_t threads) { return static_cast<int>((threads + kThreads - 1) / kThreads); }

template <class T>
__global__ void dequantize_kernel(QuantizedView m, int64_t begin, int64_t end, T* out) {
  dequantize_eight(m, begin, end, int64_t{blockIdx.x} * kThreads + threadIdx.x, out);
}

// A warp an output. The lanes' sums are added in a tree, always the same.
template <int kRows, class T>
__global__ void multiply_kernel(QuantizedView m, const T* x, int64_t stride_x, T* y,
                                int64_t stride_y) {
  const int64_t output = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (output >= m.rows) return;
  float sums[kRows] = {};
  add_lane_products<kRows>(m, x, stride_x, output, lane, sums);
  for (int r = 0; r < kRows; ++r) {
    for (int width = kWarp / 2; width > 0; width /= 2)
      sums[r] += __shfl_down_sync(0xffffffffu, sums[r], width);
    if (lane == 0) rounded_store(y + r * stride_y + output, sums[r]);
  }
}

// Rows by powers of two, the largest first: 16 = 16, 13 = 8 + 4 + 1.
template <int kRows, class T>
void multiply_rows(const QuantizedView& m, const T* x, int64_t stride_x, int64_t rows, T* y,
                   int64_t stride_y, cudaStream_t stream) {
  for (; rows >= kRows; rows -= kRows, x += kRows * stride_x, y += kRows * stride_y) {
    multiply_kernel<kRows><<<blocks_of(m.rows * kWarp), kThreads, 0, stream>>>(m, x, stride_x, y,
                                                                              stride_y);
  }
  if constexpr (kRows > 1) multiply_rows<kRows / 2>(m, x, stride_x, rows, y, stride_y, stream);
}

}  // namespace

int dequantize(const QuantizedView& matrix, int64_t begin, int64_t end, Element type, void* out,
               CUstream_st* stream) {
  const int blocks = blocks_of((end - begin + 7) / 8);
  if (blocks == 0) return 0;
  if (type == Element::kFloat32) {
    dequantize_kernel<<<blocks, kThreads, 0, stream>>>(matrix, begin, end,
                                                       static_cast<float*>(out));
  } else {
    dequantize_kernel<<<blocks, kThreads, 0, stream>>>(matrix, begin, end,
                                                       static_cast<Bf16Bits*>(out));
  }
  return cudaGetLastError();
}

int multiply(const QuantizedView& matrix, Element type, const void* x, int64_t stride_x,
             int64_t rows, void* y, int64_t stride_y, CUstream_st* stream) {
  if (type == Element::kFloat32) {
    multiply_rows<16>(matrix, static_cast<const float*>(x), stride_x, rows,
                      static_cast<float*>(y), stride_y, stream);
  } else {
    multiply_rows<16>(matrix, static_cast<const Bf16Bits*>(x), stride_x, rows,
                      static_cast<Bf16Bits*>(y), stride_y, stream);
  }
  return cudaGetLastError();
}

}  // namespace temper::trainer::cuda
