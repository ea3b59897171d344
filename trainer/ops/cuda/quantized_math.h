#pragma once

#include "trainer/ops/cuda/elements.h"

/// What one thread of quantized.cu and adamw_8bit.cu computes, as functions that also compile for
/// the host, where a test holds them against the CPU's kernels. Products and sums that have to be
/// rounded apart are (the kernels are compiled without contraction); fused ones say fmaf.
namespace temper::trainer::cuda {

constexpr int64_t kElementsOf4Bits = 64;   // a block with one scale
constexpr int64_t kElementsOf8Bits = 256;  // of scales, or of an optimizer's moments

/// A matrix of ops/quantized.h: QuantizedMatrix by its pointers. 4 bits: `values` has what the
/// sixteen codes stand for, and `absmax` or the three fields of double quantisation are there. 8
/// bits: `values` is null, `codes` are int8 and `absmax` has one scale a row.
struct QuantizedView {
  const uint8_t* codes = nullptr;
  const float* values = nullptr;
  const float* absmax = nullptr;
  const uint8_t* absmax_codes = nullptr;
  const float* nested_absmax = nullptr;
  const float* dynamic_values = nullptr;  // of 256 codes with a sign (blockwise.h)
  float offset = 0;
  int64_t rows = 0, columns = 0;
};

/// The scale of block `block` of 4 bits.
TEMPER_HOST_DEVICE float scale_of_block(const QuantizedView& m, int64_t block) {
  if (m.absmax) return m.absmax[block];
  const float product =
      m.dynamic_values[m.absmax_codes[block]] * m.nested_absmax[block / kElementsOf8Bits];
  return product + m.offset;
}

/// Elements `i` to i + kWide of the flat matrix in float32. More than one have one scale and are
/// read together: `i` and, in 8 bits, `columns` are multiples of kWide, and `codes` is aligned.
template <int kWide>
TEMPER_HOST_DEVICE Pack<float, kWide> elements(const QuantizedView& m, int64_t i) {
  Pack<float, kWide> x;
  if (!m.values) {
    constexpr float kReciprocalOf127 = 7.874015718698502e-3f;
    const auto codes = load_pack<kWide>(m.codes + i);
    // Packs are few enough to be counted in 32 bits, which divide quickly.
    const int64_t row = kWide == 1 ? i / m.columns
                                   : static_cast<uint32_t>(i / kWide) /
                                         static_cast<uint32_t>(m.columns / kWide);
    const float scale = m.absmax[row];
    for (int k = 0; k < kWide; ++k)
      x.at[k] = static_cast<float>(static_cast<int8_t>(codes.at[k])) * scale * kReciprocalOf127;
    return x;
  }
  const auto codes = load_pack<(kWide + 1) / 2>(m.codes + i / 2);
  const float scale = scale_of_block(m, i / kElementsOf4Bits);
  for (int k = 0; k < kWide; ++k) {
    const uint8_t both = codes.at[k / 2];
    const bool upper = (kWide == 1 ? i : k) % 2 == 0;
    x.at[k] = m.values[upper ? both >> 4 : both & 15] * scale;
  }
  return x;
}

/// The same rounded to T.
template <int kWide, class T>
TEMPER_HOST_DEVICE Pack<T, kWide> rounded_elements(const QuantizedView& m, int64_t i) {
  const auto x = elements<kWide>(m, i);
  Pack<T, kWide> stored;
  for (int k = 0; k < kWide; ++k) rounded_store(&stored.at[k], x.at[k]);
  return stored;
}

/// Lane `lane` of 32 of one output of y = x W^T: adds to sums[r] its part of the product of row r
/// of x [kRows, columns] and row `output` of the matrix, whose elements are rounded to T first. Of
/// kWide elements at a time where rows of both are multiples of them, and aligned. The order of the
/// sum depends on nothing but `columns` and kWide.
template <int kRows, int kWide, class T>
TEMPER_HOST_DEVICE void add_lane_products(const QuantizedView& m, const T* x, int64_t stride_x,
                                          int64_t output, int64_t lane, float* sums) {
  for (int64_t i = lane * kWide; i < m.columns; i += 32 * kWide) {
    const auto w = rounded_elements<kWide, T>(m, output * m.columns + i);
    for (int r = 0; r < kRows; ++r) {
      const auto in = load_pack<kWide>(x + r * stride_x + i);
      for (int k = 0; k < kWide; ++k) sums[r] = fmaf(widened(w.at[k]), widened(in.at[k]), sums[r]);
    }
  }
}

/// The code of `x` in a block whose largest magnitude is `peak` (blockwise.h: through a table of
/// 65536 steps, as on the CPU, so that a run goes on with the same codes on either).
TEMPER_HOST_DEVICE uint8_t code_of_8bit(const uint8_t* nearest, float x, float peak) {
  if (peak == 0) return 0;
  float v = x * (1.0f / peak);
  v = v == v ? v : -1.0f;
  v = v > 1.0f ? 1.0f : v < -1.0f ? -1.0f : v;
  return nearest[static_cast<int32_t>((v + 1.0f) * 0.5f * 65535.0f + 0.5f)];
}

}  // namespace temper::trainer::cuda
