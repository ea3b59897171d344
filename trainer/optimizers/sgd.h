#pragma once

#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {

/// SGD with momentum as torch.optim.SGD (no dampening, no Nesterov).
///     g = g + wd w        b = momentum b + g        w = w - lr b
std::unique_ptr<Optimizer> build_sgd(const recipes::Optimizer& optimizer,
                                     const std::vector<Parameter>& parameters);

}  // namespace temper::trainer
