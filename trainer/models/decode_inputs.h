#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/ops/rope.h"

namespace temper::trainer {

/// What Model::decode() reads of its next tokens.
struct DecodeInputs {
  at::Tensor token_ids;  // [N] int64
  at::Tensor table;      // page_table() of the N tokens: their positions come first
  RopeAngles angles;     // on a device undefined unless they depend on lengths: it makes its own
};

/// `inputs` on `device`, without waiting for what that still does.
DecodeInputs sent_to(at::Device device, const DecodeInputs& inputs);

}  // namespace temper::trainer
