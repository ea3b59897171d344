#include <ATen/ATen.h>

#include "trainer/adapters/adapter.h"

namespace temper::trainer {

Parameter AdapterTensors::add(const LinearSite& site, const std::string& suffix,
                              at::IntArrayRef shape, bool trainable) {
  return add("base_model.model." + site.module + "." + suffix, at::empty(shape, options_.compute),
             trainable);
}

Parameter AdapterTensors::add(const std::string& key, const at::Tensor& storage, bool trainable) {
  const bool rounded = options_.compute != at::kFloat || options_.weights != at::kFloat;
  Parameter& parameter = parameters_.emplace_back();
  parameter.name = key;
  parameter.value = storage;
  parameter.master =
      rounded ? at::empty(storage.sizes(), storage.options().dtype(at::kFloat)) : storage;
  parameter.value.set_requires_grad(trainable);
  return parameter;
}

}  // namespace temper::trainer
