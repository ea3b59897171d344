#include "trainer/ops/gradient.h"

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {

at::Tensor float32_gradient(const at::Tensor& parameter) {
  at::Tensor& gradient = parameter.mutable_grad();
  if (!gradient.defined())
    gradient =
        at::zeros(parameter.sizes(), parameter.options().dtype(at::kFloat).requires_grad(false));
  TEMPER_CHECK(gradient.scalar_type() == at::kFloat && gradient.sizes() == parameter.sizes() &&
                   gradient.is_contiguous(),
               "a gradient must be a contiguous float32 tensor of its parameter's shape");
  return gradient;
}

}  // namespace temper::trainer
