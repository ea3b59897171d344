#pragma once

#include <ATen/core/Tensor.h>

#include "recipes/recipe.h"

namespace temper::trainer {

/// What `recipe` asks for must be something that `device` does: the CPU does it all. Throws
/// UserError with every key that is not.
void check_device_does(const recipes::Recipe& recipe, at::Device device);

}  // namespace temper::trainer
