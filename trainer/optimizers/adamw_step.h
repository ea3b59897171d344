#pragma once

namespace temper::trainer {

/// The numbers of one update of one tensor by AdamW.
struct AdamWStep {
  float gradient_scale = 1;
  float beta1 = 0, beta2 = 0;
  float one_minus_beta1 = 0, one_minus_beta2 = 0;  // taken in double precision first, as torch does
  float decay = 1;                                 // 1 - lr * weight_decay
  float step_size = 0;                             // lr / (1 - beta1^t)
  float root_correction = 1;                       // sqrt(1 - beta2^t)
  float eps = 0;
};

}  // namespace temper::trainer
