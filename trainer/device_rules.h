#pragma once

#include <ATen/core/Tensor.h>

#include "recipes/recipe.h"

namespace temper::trainer {

/// What `recipe` asks for must be something that `device`, of this compute capability (90 for 9.0),
/// does: the CPU does it all. Throws UserError with every key that is not.
void check_device_does(const recipes::Recipe& recipe, at::Device device, int compute_capability);

}  // namespace temper::trainer
