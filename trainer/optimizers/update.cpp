#include "trainer/optimizers/update.h"

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {

std::vector<Parameter> trainable(const std::vector<Parameter>& parameters) {
  std::vector<Parameter> chosen;
  for (const Parameter& parameter : parameters) {
    if (!parameter.trainable()) continue;
    TEMPER_CHECK(parameter.master.is_contiguous() &&
                     parameter.master.scalar_type() == at::kFloat &&
                     parameter.value.is_contiguous(),
                 parameter.name + ": masters are contiguous float32");
    chosen.push_back(parameter);
  }
  return chosen;
}

at::Tensor zeros_like_master(const Parameter& parameter) {
  return at::zeros(parameter.master.sizes(), parameter.master.options());
}

std::vector<UpdateTarget> update_targets(const std::vector<Parameter>& parameters) {
  std::vector<UpdateTarget> targets;
  for (const Parameter& parameter : parameters) {
    UpdateTarget& target = targets.emplace_back();
    target.weight = static_cast<float*>(parameter.master.data_ptr());
    if (const at::Tensor& gradient = parameter.value.grad(); gradient.defined()) {
      TEMPER_CHECK(gradient.scalar_type() == at::kFloat && gradient.is_contiguous() &&
                       gradient.numel() == parameter.master.numel(),
                   parameter.name + ": gradients are contiguous float32");
      target.gradient = gradient.const_data_ptr<float>();
    }
    if (!parameter.value.is_same(parameter.master)) {
      target.value = parameter.value.data_ptr();
      target.compute = parameter.value.scalar_type();
    }
  }
  return targets;
}

}  // namespace temper::trainer
