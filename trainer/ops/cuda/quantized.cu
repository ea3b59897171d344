// Compiled without contraction of products and sums (CMakeLists.txt).
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

// Codes are few bytes: a thread has several packs under way at a time.
constexpr int kPacks = 4;

template <class T, int kWide>
__global__ void dequantize_kernel(QuantizedView m, int64_t begin, int64_t end, T* out) {
  const int64_t first = begin + (int64_t{blockIdx.x} * kPacks * kThreads + threadIdx.x) * kWide;
  const auto place = [&](int p) { return first + int64_t{p} * kThreads * kWide; };
  Pack<T, kWide> packs[kPacks];
  // Behind the end anything that is there: a branch would keep the packs' loads apart.
  for (int p = 0; p < kPacks; ++p)
    packs[p] = rounded_elements<kWide, T>(m, place(p) < end ? place(p) : begin);
  for (int p = 0; p < kPacks; ++p)
    if (place(p) < end) store_pack(out + (place(p) - begin), packs[p]);
}

// A warp an output. The lanes' sums are added in a tree, always the same.
template <int kRows, int kWide, class T>
__global__ void multiply_kernel(QuantizedView m, const T* x, int64_t stride_x, T* y,
                                int64_t stride_y) {
  const int64_t output = thread_number() / kWarp;
  if (output >= m.rows) return;
  float sums[kRows] = {};
  add_lane_products<kRows, kWide>(m, x, stride_x, output, lane(), sums);
  for (int r = 0; r < kRows; ++r) {
    const float sum = warp_sum(sums[r]);
    if (lane() == 0) rounded_store(y + r * stride_y + output, sum);
  }
}

// Rows by powers of two, the largest first: 16 = 16, 13 = 8 + 4 + 1.
template <int kRows, int kWide, class T>
int multiply_rows(const QuantizedView& m, const T* x, int64_t stride_x, int64_t rows, T* y,
                  int64_t stride_y, CUstream_st* stream) {
  for (; rows >= kRows; rows -= kRows, x += kRows * stride_x, y += kRows * stride_y) {
    const int error = launch(multiply_kernel<kRows, kWide, T>, blocks_of(m.rows * kWarp), stream, m,
                             x, stride_x, y, stride_y);
    if (error != 0) return error;
  }
  if constexpr (kRows > 1)
    return multiply_rows<kRows / 2, kWide>(m, x, stride_x, rows, y, stride_y, stream);
  return 0;
}

}  // namespace

int dequantize(const QuantizedView& matrix, int64_t begin, int64_t end, Element type, void* out,
               CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const bool in_line = aligned(matrix.codes) && aligned(out);
    return with_width<T>(in_line, matrix.columns | begin | end, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      const int64_t a_block = int64_t{kThreads} * kPacks * kWide;
      return launch(dequantize_kernel<T, kWide>, (end - begin + a_block - 1) / a_block, stream,
                    matrix, begin, end, static_cast<T*>(out));
    });
  });
}

int multiply(const QuantizedView& matrix, Element type, const void* x, int64_t stride_x,
             int64_t rows, void* y, int64_t stride_y, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const bool in_line = aligned(matrix.codes) && aligned(x);
    return with_width<T>(in_line, matrix.columns | stride_x, [&](auto width) {
      return multiply_rows<16, decltype(width)::value>(matrix, static_cast<const T*>(x), stride_x,
                                                       rows, static_cast<T*>(y), stride_y, stream);
    });
  });
}

}  // namespace temper::trainer::cuda
