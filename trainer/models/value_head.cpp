#include "trainer/models/value_head.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

constexpr const char* kPrefix = "v_head.summary.";

}  // namespace

bool of_value_head(const Parameter& parameter) { return parameter.name.starts_with(kPrefix); }

void add_value_head(Model& model, const ModelOptions& options) {
  const auto add = [&](const char* name, at::IntArrayRef shape, bool decay) {
    const at::Tensor value =
        at::empty(shape, at::TensorOptions(options.device).dtype(at::kFloat)).requires_grad_();
    model.parameters().push_back(
        {.name = std::string(kPrefix) + name, .value = value, .master = value, .decay = decay});
  };
  add("weight", {1, model.config().hidden_size}, true);
  add("bias", {1}, false);
}

ValueHead value_head(Model& model) {
  const std::vector<Parameter>& parameters = model.parameters();
  const auto first = std::find_if(parameters.begin(), parameters.end(), of_value_head);
  TEMPER_CHECK(parameters.end() - first == 2, "a model with a value head");
  return {.weight = first[0].value, .bias = first[1].value};
}

}  // namespace temper::trainer
