#pragma once

#include "trainer/ops/cuda/elements.h"

/// What one thread computes of a cast to float8 (ops/float8.h).
namespace temper::trainer::cuda {

/// Of a format with `kMantissa` bits of mantissa, a bias of `kBias` and `largest`: the code of x,
/// clamped, to nearest, ties to even. NaN stays NaN.
template <int kMantissa, int kBias>
TEMPER_HOST_DEVICE uint8_t float8_code(float x, float largest) {
  constexpr int kShift = 23 - kMantissa;
  const uint32_t bits = bits_of_float(x);
  const auto sign = static_cast<uint8_t>((bits >> 24) & 0x80u);
  uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7fu;
  const uint32_t limit = bits_of_float(largest);
  if (magnitude > limit) magnitude = limit;
  if (magnitude < (128u - kBias) << 23) {
    // Below the smallest exponent: adding 2^23 of the smallest steps leaves a count of them, rounded.
    const float steps = float_of_bits((127u + 24u - kBias - kMantissa) << 23);
    return static_cast<uint8_t>(
        sign | (bits_of_float(float_of_bits(magnitude) + steps) - bits_of_float(steps)));
  }
  magnitude -= (127u - kBias) << 23;
  magnitude += (1u << (kShift - 1)) - 1u + ((magnitude >> kShift) & 1u);
  return static_cast<uint8_t>(sign | (magnitude >> kShift));
}

TEMPER_HOST_DEVICE uint8_t float8_code(float x, bool e5m2) {
  return e5m2 ? float8_code<2, 15>(x, 57344.0f) : float8_code<3, 7>(x, 448.0f);
}

/// The codes of four, the first in the lowest byte. From Ada on the hardware has the same ones.
TEMPER_HOST_DEVICE uint32_t four_float8_codes(const float* x, bool e5m2) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t lower, upper;
  if (e5m2) {
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(lower) : "f"(x[1]), "f"(x[0]));
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(upper) : "f"(x[3]), "f"(x[2]));
  } else {
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(lower) : "f"(x[1]), "f"(x[0]));
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(upper) : "f"(x[3]), "f"(x[2]));
  }
  return lower | static_cast<uint32_t>(upper) << 16;
#else
  const auto code = [&](int k) { return static_cast<uint32_t>(float8_code(x[k], e5m2)); };
  return code(0) | code(1) << 8 | code(2) << 16 | code(3) << 24;
#endif
}

/// The scale for a largest magnitude, which may be NaN.
TEMPER_HOST_DEVICE float float8_scale(float amax, bool e5m2, bool power_of_two) {
  const double bounded = amax < 1e-12 ? 1e-12 : static_cast<double>(amax);
  const auto scale = static_cast<float>(1.0 / bounded * (e5m2 ? 57344.0 : 448.0));
  const bool is_number = scale == scale;
  return power_of_two && is_number ? float_of_bits(bits_of_float(scale) & 0xff800000u) : scale;
}

}  // namespace temper::trainer::cuda
