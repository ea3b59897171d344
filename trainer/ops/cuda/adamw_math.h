#pragma once

#include "trainer/ops/cuda/elements.h"
#include "trainer/optimizers/adamw_step.h"

namespace temper::trainer::cuda {

/// What the forward pass uses of a master: the new weight rounded to `weights`, then to `compute`.
/// Null: the master itself.
struct ValueView {
  void* data = nullptr;
  Element compute = Element::kFloat32, weights = Element::kFloat32;
};

TEMPER_HOST_DEVICE float rounded(Element type, float x) {
  Bf16Bits narrow;
  F16Bits half;
  return type == Element::kFloat32    ? x
         : type == Element::kBfloat16 ? rounded_store(&narrow, x)
                                      : rounded_store(&half, x);
}

TEMPER_HOST_DEVICE void store_value(const ValueView& value, int64_t i, float weight) {
  if (!value.data) return;
  const float stored = rounded(value.weights, weight);
  if (value.compute == Element::kFloat32) static_cast<float*>(value.data)[i] = stored;
  if (value.compute == Element::kBfloat16)
    rounded_store(static_cast<Bf16Bits*>(value.data) + i, stored);
  if (value.compute == Element::kFloat16)
    rounded_store(static_cast<F16Bits*>(value.data) + i, stored);
}

/// The moments of an element.
struct Moments {
  float m, v;
};

/// adamw_fused_update()'s of optimizers/kernels.h.
TEMPER_HOST_DEVICE Moments fused_moments(const AdamWStep& s, Moments old, float gradient) {
  const float g = gradient * s.gradient_scale;
  return {fmaf(g, s.one_minus_beta1, old.m * s.beta1),
          fmaf(s.one_minus_beta2 * g, g, old.v * s.beta2)};
}
/// adamw_update()'s.
TEMPER_HOST_DEVICE Moments plain_moments(const AdamWStep& s, Moments old, float gradient) {
  const float g = gradient * s.gradient_scale;
  const float towards = g - old.m;
  return {s.one_minus_beta1 < 0.5f ? old.m + s.one_minus_beta1 * towards
                                   : g - towards * (1.0f - s.one_minus_beta1),
          old.v * s.beta2 + s.one_minus_beta2 * g * g};
}
TEMPER_HOST_DEVICE float updated_weight(const AdamWStep& s, float weight, Moments moments) {
  const float denominator = sqrtf(moments.v) / s.root_correction + s.eps;
  return weight * s.decay + -s.step_size * moments.m / denominator;
}

/// One tensor of AdamW, all of it float32 but the value. `fused`: moments are fused_moments().
struct AdamWView {
  float* weight = nullptr;
  float* exp_avg = nullptr;
  float* exp_avg_sq = nullptr;
  const float* gradient = nullptr;
  ValueView value;
  int64_t count = 0;
  bool fused = false;
};

/// All is read before anything is stored, so that a thread waits for memory once.
TEMPER_HOST_DEVICE void adamw_element(const AdamWView& t, const AdamWStep& s, int64_t i) {
  const Moments old{t.exp_avg[i], t.exp_avg_sq[i]};
  const float gradient = t.gradient[i], weight = t.weight[i];
  const Moments moments =
      t.fused ? fused_moments(s, old, gradient) : plain_moments(s, old, gradient);
  const float updated = updated_weight(s, weight, moments);
  t.exp_avg[i] = moments.m;
  t.exp_avg_sq[i] = moments.v;
  t.weight[i] = updated;
  store_value(t.value, i, updated);
}

}  // namespace temper::trainer::cuda
