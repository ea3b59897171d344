#pragma once

#include "trainer/ops/cuda/adamw_math.h"
#include "trainer/ops/cuda/quantized_math.h"

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
  ValueView value;
  int64_t count = 0;
};

/// Updates the weight of element `i` from widened moments; returns the new ones, before they are
/// rounded.
TEMPER_HOST_DEVICE Moments update_element(const AdamW8bitView& t, const AdamWStep& s, int64_t i) {
  const int64_t block = i / kElementsOf8Bits;
  const Moments old{t.signed_values[t.m_codes[i]] * t.m_absmax[block],
                    t.unsigned_values[t.v_codes[i]] * t.v_absmax[block]};
  const Moments moments = fused_moments(s, old, t.gradient[i]);
  t.weight[i] = updated_weight(s, t.weight[i], moments);
  store_value(t.value, i, t.weight[i]);
  return moments;
}

/// Stores them, once the block's largest magnitudes are known.
TEMPER_HOST_DEVICE void store_element(const AdamW8bitView& t, int64_t i, Moments moments,
                                      float m_peak, float v_peak) {
  t.m_codes[i] = code_of_8bit(t.signed_nearest, moments.m, m_peak);
  t.v_codes[i] = code_of_8bit(t.unsigned_nearest, moments.v, v_peak);
  if (i % kElementsOf8Bits != 0) return;
  t.m_absmax[i / kElementsOf8Bits] = m_peak;
  t.v_absmax[i / kElementsOf8Bits] = v_peak;
}

}  // namespace temper::trainer::cuda
