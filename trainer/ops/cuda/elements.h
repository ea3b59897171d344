#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

/// The types of tensors' elements as the kernels see them, for the device and for the host (where
/// tests run what a thread computes). No LibTorch: plain pointers and sizes. All arithmetic is
/// float32.
#ifdef __CUDACC__
#define TEMPER_HOST_DEVICE __host__ __device__ inline
#else
#define TEMPER_HOST_DEVICE inline
#endif

namespace temper::trainer::cuda {

enum class Element { kFloat32, kBfloat16, kFloat16 };

/// bfloat16 and float16 by their bits.
struct Bf16Bits {
  uint16_t bits;
};
struct F16Bits {
  uint16_t bits;
};

TEMPER_HOST_DEVICE float float_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
TEMPER_HOST_DEVICE uint32_t bits_of_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

TEMPER_HOST_DEVICE float widened(float x) { return x; }
TEMPER_HOST_DEVICE float widened(Bf16Bits x) {
  return float_of_bits(static_cast<uint32_t>(x.bits) << 16);
}
TEMPER_HOST_DEVICE float widened(F16Bits x) {
#ifdef __CUDA_ARCH__
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#else
  // The exponent moves by 112; what has none (zero, subnormal) is a multiple of 2^-24.
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  const float value = magnitude < 0x400u ? static_cast<float>(magnitude) * 5.9604644775390625e-8f
                                         : float_of_bits((magnitude << 13) + (112u << 23));
  return float_of_bits(bits_of_float(value) | sign);
#endif
}

/// To nearest, ties to even. Returns what is stored. The device's own conversions give the host's
/// bits, but for those of a NaN.
TEMPER_HOST_DEVICE float rounded_store(float* to, float x) { return *to = x; }
TEMPER_HOST_DEVICE float rounded_store(Bf16Bits* to, float x) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
  return widened(*to);
#else
  uint32_t bits = bits_of_float(x);
  // A NaN must not be rounded to infinity.
  bits = x == x ? (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u : 0x7fc00000u;
  to->bits = static_cast<uint16_t>(bits >> 16);
  return float_of_bits(bits);
#endif
}
TEMPER_HOST_DEVICE float rounded_store(F16Bits* to, float x) {
#ifdef __CUDA_ARCH__
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(x));
#else
  const uint32_t bits = bits_of_float(x);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    to->bits = static_cast<uint16_t>(sign | 0x7e00u);
  } else if (magnitude >= 0x477ff000u) {  // 65520 and above
    to->bits = static_cast<uint16_t>(sign | 0x7c00u);
  } else if (magnitude < 0x38800000u) {
    // Below 2^-14: adding 0.5 leaves a multiple of 2^-24 in the last bits, rounded.
    to->bits = static_cast<uint16_t>(
        sign | (bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u));
  } else {
    to->bits = static_cast<uint16_t>(
        sign | ((magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13));
  }
#endif
  return widened(*to);
}

/// Elements that are read and written together.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T at[kCount];
};
template <int kCount, class T>
TEMPER_HOST_DEVICE Pack<T, kCount> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, kCount>*>(from);
}
template <int kCount, class T>
TEMPER_HOST_DEVICE void store_pack(T* to, const Pack<T, kCount>& pack) {
  *reinterpret_cast<Pack<T, kCount>*>(to) = pack;
}
/// A pack of 16 bytes.
template <class T>
constexpr int kFullPack = 16 / static_cast<int>(sizeof(T));

}  // namespace temper::trainer::cuda
