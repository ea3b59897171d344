#pragma once

#include <cstdint>

#include <c10/core/ScalarType.h>

#include "trainer/optimizers/adamw_step.h"

/// The arithmetic of the optimizers on plain float32 arrays: one thread, vectorised for the
/// processor at hand. No operation is fused unless it says so, and none reordered, so every
/// instruction set gives the same bits.
namespace temper::trainer {

/// Loshchilov and Hutter 2019 (arXiv:1711.05101, algorithm 2) in torch.optim.AdamW's order of
/// operations.
void adamw_update(float* weight, float* exp_avg, float* exp_avg_sq, const float* gradient,
                  int64_t n, const AdamWStep& step);

/// The same with moments as torch's in-place operations round them, each with one fused
/// multiply-add: m = fma(g, 1 - b1, b1 m), v = fma((1 - b2) g, g, b2 v). What bitsandbytes does on
/// the CPU.
void adamw_fused_update(float* weight, float* exp_avg, float* exp_avg_sq, const float* gradient,
                        int64_t n, const AdamWStep& step);

struct SgdStep {
  float gradient_scale = 1;
  float lr = 0;
  float momentum = 0;
  float weight_decay = 0;  // added to the gradient, as torch.optim.SGD does
};

/// `momentum_buffer` may be null when momentum is 0.
void sgd_update(float* weight, float* momentum_buffer, const float* gradient, int64_t n,
                const SgdStep& step);

/// value[i] = weight[i] rounded to `weights`, then to `compute` (float32, bfloat16 or float16, to
/// nearest even).
void store_value(void* value, const float* weight, int64_t n, at::ScalarType compute,
                 at::ScalarType weights);

/// Sum of squares in double precision, over sixteen lanes that are added pairwise at the end.
double sum_of_squares(const float* x, int64_t n);

}  // namespace temper::trainer
