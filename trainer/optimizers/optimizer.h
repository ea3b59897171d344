#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"
#include "recipes/recipe.h"
#include "trainer/models/model.h"

/// Updates of the trainable parameters from their float32 gradients (`value.grad()`, unnormalised
/// sums), in one pass each: scale, clip, update of master and states, copy to the compute type.
namespace temper::trainer {

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  /// `gradient_scale` multiplies every gradient first: 1 / global count, times the clip factor.
  virtual void step(double lr, double gradient_scale) = 0;
  /// States by name ("exp_avg/model.norm.weight"), float32 or uint8 codes; views that loading
  /// writes into.
  virtual std::vector<std::pair<std::string, at::Tensor>> state() = 0;
  /// Updates done (bias correction depends on it).
  int64_t updates = 0;
};

/// From the registry (registry.cpp: kind, builder, sentence).
std::unique_ptr<Optimizer> build_optimizer(const recipes::Optimizer& optimizer,
                                           std::vector<Parameter>& parameters);

/// L2 norm of the concatenation of float32 `tensors`, in a fixed block order that does not depend
/// on threads.
double global_norm(const std::vector<at::Tensor>& tensors);

/// The same of tensors of which each rank of `group` has a segment, all of a tensor's segments of
/// one size and whole blocks: the same bits on every rank and for any number of them. Collective.
double global_norm(const std::vector<at::Tensor>& segments, parallel::Communicator& group);

/// min(1, max_norm / (norm + 1e-6)), torch's clip_grad_norm_; 1 when max_norm is 0.
double clip_factor(double norm, double max_norm);

}  // namespace temper::trainer
