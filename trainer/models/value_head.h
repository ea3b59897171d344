#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "trainer/models/model.h"

/// What a policy is trained with and is no part of it: a linear layer from final hidden states to one
/// number, the value of what stands there. Its parameters come last among the model's, under the
/// names of TRL's AutoModelForCausalLMWithValueHead, always float32 and always trained: gradients,
/// optimizer states and checkpoints have them as they have all others, exports do not.
namespace temper::trainer {

struct ValueHead {
  at::Tensor weight;  // leaf [1, D]
  at::Tensor bias;    // leaf [1]
};

/// Appends the head, uninitialised. Adapters and references that are made before do not see it.
void add_value_head(Model& model, const ModelOptions& options);

/// Draws it as draw_weights does: normal with initializer_range from `seed`, the bias zero.
void draw_value_head(Model& model, int64_t seed);  // weights.cpp

/// The head that the model has.
ValueHead value_head(Model& model);

bool of_value_head(const Parameter& parameter);

}  // namespace temper::trainer
