#pragma once

#include "trainer/ops/cuda/quantized_math.h"
#include "trainer/optimizers/adamw_step.h"

namespace temper::trainer::cuda {

/// One tensor of 8-bit AdamW (optimizers/adamw_8bit.h): codes of both moments in blocks of 256 with
/// their scales, and the tables of blockwise.h with a sign (m) and without (v).
struct AdamW8bitView {
  float* weight = nullptr;          // float32 master
  const float* gradient = nullptr;  // float32
  uint8_t* m_codes = nullptr;
  uint8_t* v_codes = nullptr;
  float* m_absmax = nullptr;
  float* v_absmax = nullptr;
  const float* signed_values = nullptr;
  const float* unsigned_values = nullptr;
  const uint8_t* signed_nearest = nullptr;
  const uint8_t* unsigned_nearest = nullptr;
  int64_t count = 0;
};

/// The new moments of an element, before they are rounded.
struct NewMoments {
  float m, v;
};

/// Updates the weight of element `i` from widened moments; adamw_fused_update() for one element.
TEMPER_HOST_DEVICE NewMoments update_element(const AdamW8bitView& t, const AdamWStep& s,
                                             int64_t i) {
  const int64_t block = i / kElementsOf8Bits;
  const float old_m = t.signed_values[t.m_codes[i]] * t.m_absmax[block];
  const float old_v = t.unsigned_values[t.v_codes[i]] * t.v_absmax[block];
  const float g = t.gradient[i] * s.gradient_scale;
  const float m = fmaf(g, s.one_minus_beta1, old_m * s.beta1);
  const float v = fmaf(s.one_minus_beta2 * g, g, old_v * s.beta2);
  const float denominator = sqrtf(v) / s.root_correction + s.eps;
  t.weight[i] = t.weight[i] * s.decay + -s.step_size * m / denominator;
  return {m, v};
}

/// Stores them, once the block's largest magnitudes are known.
TEMPER_HOST_DEVICE void store_element(const AdamW8bitView& t, int64_t i, NewMoments moments,
                                      float m_peak, float v_peak) {
  t.m_codes[i] = code_of_8bit(t.signed_nearest, moments.m, m_peak);
  t.v_codes[i] = code_of_8bit(t.unsigned_nearest, moments.v, v_peak);
  if (i % kElementsOf8Bits != 0) return;
  t.m_absmax[i / kElementsOf8Bits] = m_peak;
  t.v_absmax[i / kElementsOf8Bits] = v_peak;
}

}  // namespace temper::trainer::cuda
