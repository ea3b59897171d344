#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/models/model.h"
#include "trainer/optimizers/blocks.h"
#include "trainer/optimizers/kernels.h"

/// What every optimizer's step shares: which parameters have a gradient, and the one pass over
/// them.
namespace temper::trainer {

/// The trainable ones, checked: contiguous float32 masters.
std::vector<Parameter> trainable(const std::vector<Parameter>& parameters);

/// A zero tensor of the master's shape.
at::Tensor zeros_like_master(const Parameter& parameter);

struct UpdateTarget {
  float* weight = nullptr;          // master
  const float* gradient = nullptr;  // of value
  void* value = nullptr;            // null where the master itself is the value
  at::ScalarType compute = at::kFloat;
};

/// One a parameter; where it has no gradient, torch leaves it alone and so do we: `gradient` is
/// null.
std::vector<UpdateTarget> update_targets(const std::vector<Parameter>& parameters);

/// Calls update(parameter index, begin, count) for every block of every parameter with a gradient,
/// in parallel, and stores the block's new values, rounded to the parameter's dtype, while it is
/// still in the cache.
template <typename Update>
void update_blocks(const std::vector<Parameter>& parameters,
                   const std::vector<UpdateTarget>& targets, const Update& update) {
  std::vector<int64_t> sizes;
  for (size_t i = 0; i < targets.size(); ++i) {
    sizes.push_back(targets[i].gradient ? parameters[i].master.numel() : 0);
  }
  for_each_block(sizes, [&](size_t i, int64_t begin, int64_t count, int64_t) {
    update(i, begin, count);
    const UpdateTarget& target = targets[i];
    if (!target.value) return;
    char* value = static_cast<char*>(target.value) +
                  begin * static_cast<int64_t>(c10::elementSize(target.compute));
    store_value(value, target.weight + begin, count, target.compute, parameters[i].dtype);
  });
}

}  // namespace temper::trainer
