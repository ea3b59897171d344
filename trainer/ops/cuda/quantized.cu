// Compiled without contraction of products and sums (CMakeLists.txt).
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

template <class T>
__global__ void dequantize_kernel(QuantizedView m, int64_t begin, int64_t end, T* out) {
  dequantize_eight(m, begin, end, thread_number(), out);
}

// A warp an output. The lanes' sums are added in a tree, always the same.
template <int kRows, class T>
__global__ void multiply_kernel(QuantizedView m, const T* x, int64_t stride_x, T* y,
                                int64_t stride_y) {
  const int64_t output = thread_number() / kWarp;
  if (output >= m.rows) return;
  float sums[kRows] = {};
  add_lane_products<kRows>(m, x, stride_x, output, lane(), sums);
  for (int r = 0; r < kRows; ++r) {
    const float sum = warp_sum(sums[r]);
    if (lane() == 0) rounded_store(y + r * stride_y + output, sum);
  }
}

// Rows by powers of two, the largest first: 16 = 16, 13 = 8 + 4 + 1.
template <int kRows, class T>
int multiply_rows(const QuantizedView& m, const T* x, int64_t stride_x, int64_t rows, T* y,
                  int64_t stride_y, CUstream_st* stream) {
  for (; rows >= kRows; rows -= kRows, x += kRows * stride_x, y += kRows * stride_y) {
    const int error = launch(multiply_kernel<kRows, T>, blocks_of(m.rows * kWarp), stream, m, x,
                             stride_x, y, stride_y);
    if (error != 0) return error;
  }
  if constexpr (kRows > 1)
    return multiply_rows<kRows / 2>(m, x, stride_x, rows, y, stride_y, stream);
  return 0;
}

}  // namespace

int dequantize(const QuantizedView& matrix, int64_t begin, int64_t end, Element type, void* out,
               CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    return launch(dequantize_kernel<T>, blocks_of((end - begin + 7) / 8), stream, matrix, begin,
                  end, static_cast<T*>(out));
  });
}

int multiply(const QuantizedView& matrix, Element type, const void* x, int64_t stride_x,
             int64_t rows, void* y, int64_t stride_y, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    return multiply_rows<16>(matrix, static_cast<const T*>(x), stride_x, rows, static_cast<T*>(y),
                             stride_y, stream);
  });
}

}  // namespace temper::trainer::cuda
