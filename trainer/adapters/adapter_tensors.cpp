#include <ATen/ATen.h>

#include "trainer/adapters/adapter.h"

namespace temper::trainer {

Parameter AdapterTensors::add(const LinearSite& site, const std::string& suffix,
                              at::IntArrayRef shape, Precision precision, bool trainable) {
  return add("base_model.model." + site.module + "." + suffix, empty(shape, precision), trainable);
}

at::Tensor AdapterTensors::empty(at::IntArrayRef shape, Precision precision) const {
  const at::ScalarType type = precision == Precision::kCompute ? compute_ : at::kFloat;
  return at::empty(shape, at::TensorOptions(device_).dtype(type));
}

Parameter AdapterTensors::add(const std::string& key, const at::Tensor& storage, bool trainable) {
  Parameter parameter{.name = key,
                      .value = storage.detach().requires_grad_(trainable),
                      .master = {},
                      .decay = !key.ends_with(".bias"),
                      .dtype = dtype_};
  const bool rounded = storage.scalar_type() != at::kFloat || dtype_ != at::kFloat;
  parameter.master =
      rounded ? at::empty(storage.sizes(), storage.options().dtype(at::kFloat)) : parameter.value;
  parameters_.push_back(parameter);
  return parameter;
}

}  // namespace temper::trainer
