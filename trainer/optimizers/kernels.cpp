#include "trainer/optimizers/kernels.h"

#include <bit>
#include <cmath>

#include <c10/util/Half.h>

#include "recipes/diagnostic.h"

// Each kernel is one inlined body, compiled once for each instruction set by a caller that allows
// it. (A file for each would let the linker pick an AVX-512 copy of some header's inline function
// for every processor.)
#if defined(__x86_64__)
#define TEMPER_KERNEL(result, name, parameters, arguments)                                       \
  [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl")]] static result name##_avx512 parameters { \
    return name##_body arguments;                                                                \
  }                                                                                              \
  [[gnu::target("avx2,fma")]] static result name##_avx2 parameters {                             \
    return name##_body arguments;                                                                \
  }                                                                                              \
  static result name##_any parameters { return name##_body arguments; }                          \
  static result name##_here parameters {                                                         \
    static const auto kernel = __builtin_cpu_supports("avx512vl") &&                             \
                                       __builtin_cpu_supports("avx512bw") &&                     \
                                       __builtin_cpu_supports("avx512dq")                        \
                                   ? name##_avx512                                               \
                               : __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") \
                                   ? name##_avx2                                                 \
                                   : name##_any;                                                 \
    return kernel arguments;                                                                     \
  }
#else
#define TEMPER_KERNEL(result, name, parameters, arguments) \
  static result name##_here parameters { return name##_body arguments; }
#endif
#define TEMPER_INLINE [[gnu::always_inline]] inline

namespace temper::trainer {

namespace {

// Bodies take their settings by value: for all the compiler knows, a store to weight[i] might
// change a referenced one.

TEMPER_INLINE void adamw_body(float* weight, float* exp_avg, float* exp_avg_sq,
                              const float* gradient, int64_t n, const AdamWStep s) {
  // torch's lerp takes whichever end is nearer, for accuracy.
  const bool near_start = s.one_minus_beta1 < 0.5f;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * s.gradient_scale;
    const float towards = g - exp_avg[i];
    const float m = near_start ? exp_avg[i] + s.one_minus_beta1 * towards
                               : g - towards * (1.0f - s.one_minus_beta1);
    const float v = exp_avg_sq[i] * s.beta2 + s.one_minus_beta2 * g * g;
    const float denominator = std::sqrt(v) / s.root_correction + s.eps;
    weight[i] = weight[i] * s.decay + -s.step_size * m / denominator;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
  }
}

TEMPER_INLINE void adamw_fused_body(float* weight, float* exp_avg, float* exp_avg_sq,
                                    const float* gradient, int64_t n, const AdamWStep s) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * s.gradient_scale;
    const float m = __builtin_fmaf(g, s.one_minus_beta1, exp_avg[i] * s.beta1);
    const float v = __builtin_fmaf(s.one_minus_beta2 * g, g, exp_avg_sq[i] * s.beta2);
    const float denominator = std::sqrt(v) / s.root_correction + s.eps;
    weight[i] = weight[i] * s.decay + -s.step_size * m / denominator;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
  }
}

TEMPER_INLINE void sgd_body(float* weight, const float* gradient, int64_t n, const SgdStep s) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * s.gradient_scale + s.weight_decay * weight[i];
    weight[i] = weight[i] + -s.lr * g;
  }
}

TEMPER_INLINE void momentum_body(float* weight, float* buffer, const float* gradient, int64_t n,
                                 const SgdStep s) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const float g = gradient[i] * s.gradient_scale + s.weight_decay * weight[i];
    const float b = buffer[i] * s.momentum + g;
    buffer[i] = b;
    weight[i] = weight[i] + -s.lr * b;
  }
}

TEMPER_INLINE uint16_t bf16_bits(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
}

struct RoundToFloat {
  TEMPER_INLINE static float round(float x) { return x; }
  using Stored = float;
  TEMPER_INLINE static Stored store(float x) { return x; }
};
struct RoundToBf16 {
  TEMPER_INLINE static float round(float x) {
    return std::bit_cast<float>(static_cast<uint32_t>(bf16_bits(x)) << 16);
  }
  using Stored = uint16_t;
  TEMPER_INLINE static Stored store(float x) { return bf16_bits(x); }
};
struct RoundToFp16 {
  TEMPER_INLINE static float round(float x) {
    return c10::detail::fp16_ieee_to_fp32_value(c10::detail::fp16_ieee_from_fp32_value(x));
  }
  using Stored = uint16_t;
  TEMPER_INLINE static Stored store(float x) { return c10::detail::fp16_ieee_from_fp32_value(x); }
};

template <typename Compute, typename Weights>
TEMPER_INLINE void store_as(void* value, const float* weight, int64_t n) {
  auto* out = static_cast<typename Compute::Stored*>(value);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) out[i] = Compute::store(Weights::round(weight[i]));
}

template <typename Compute>
TEMPER_INLINE void store_through(void* value, const float* weight, int64_t n,
                                 at::ScalarType weights) {
  switch (weights) {
    case at::kBFloat16:
      return store_as<Compute, RoundToBf16>(value, weight, n);
    case at::kHalf:
      return store_as<Compute, RoundToFp16>(value, weight, n);
    default:
      return store_as<Compute, RoundToFloat>(value, weight, n);
  }
}

TEMPER_INLINE void store_body(void* value, const float* weight, int64_t n, at::ScalarType compute,
                              at::ScalarType weights) {
  switch (compute) {
    case at::kBFloat16:
      return store_through<RoundToBf16>(value, weight, n, weights);
    case at::kHalf:
      return store_through<RoundToFp16>(value, weight, n, weights);
    default:
      return store_through<RoundToFloat>(value, weight, n, weights);
  }
}

TEMPER_INLINE double squares_body(const float* x, int64_t n) {
  constexpr int64_t kLanes = 16;
  double lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const double value = x[i + lane];
      lanes[lane] += value * value;
    }
  }
  for (; i < n; ++i) lanes[i % kLanes] += static_cast<double>(x[i]) * x[i];
  for (int64_t width = kLanes / 2; width > 0; width /= 2) {
    for (int64_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

TEMPER_KERNEL(void, adamw,
              (float* weight, float* exp_avg, float* exp_avg_sq, const float* gradient, int64_t n,
               const AdamWStep& step),
              (weight, exp_avg, exp_avg_sq, gradient, n, step))
TEMPER_KERNEL(void, adamw_fused,
              (float* weight, float* exp_avg, float* exp_avg_sq, const float* gradient, int64_t n,
               const AdamWStep& step),
              (weight, exp_avg, exp_avg_sq, gradient, n, step))
TEMPER_KERNEL(void, sgd, (float* weight, const float* gradient, int64_t n, const SgdStep& step),
              (weight, gradient, n, step))
TEMPER_KERNEL(void, momentum,
              (float* weight, float* buffer, const float* gradient, int64_t n, const SgdStep& step),
              (weight, buffer, gradient, n, step))
TEMPER_KERNEL(void, store,
              (void* value, const float* weight, int64_t n, at::ScalarType compute,
               at::ScalarType weights),
              (value, weight, n, compute, weights))
TEMPER_KERNEL(double, squares, (const float* x, int64_t n), (x, n))

bool is_float_type(at::ScalarType type) {
  return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
}

}  // namespace

void adamw_update(float* weight, float* exp_avg, float* exp_avg_sq, const float* gradient,
                  int64_t n, const AdamWStep& step) {
  adamw_here(weight, exp_avg, exp_avg_sq, gradient, n, step);
}

void adamw_fused_update(float* weight, float* exp_avg, float* exp_avg_sq, const float* gradient,
                        int64_t n, const AdamWStep& step) {
  adamw_fused_here(weight, exp_avg, exp_avg_sq, gradient, n, step);
}

void sgd_update(float* weight, float* momentum_buffer, const float* gradient, int64_t n,
                const SgdStep& step) {
  if (momentum_buffer) {
    momentum_here(weight, momentum_buffer, gradient, n, step);
  } else {
    sgd_here(weight, gradient, n, step);
  }
}

void store_value(void* value, const float* weight, int64_t n, at::ScalarType compute,
                 at::ScalarType weights) {
  TEMPER_CHECK(is_float_type(compute) && is_float_type(weights), "values are fp32, bf16 or fp16");
  store_here(value, weight, n, compute, weights);
}

double sum_of_squares(const float* x, int64_t n) { return squares_here(x, n); }

}  // namespace temper::trainer
