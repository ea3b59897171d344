#include "trainer/ops/gradient.h"

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {
namespace {

thread_local float loss_gradient = 1;

}  // namespace

LossGradient::LossGradient(float value) : before_(loss_gradient) { loss_gradient = value; }
LossGradient::~LossGradient() { loss_gradient = before_; }
float LossGradient::value() { return loss_gradient; }

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

void add_partial_sums(const at::Tensor& partial, const at::Tensor& gradient) {
  if (kernels_for(partial)) {
    gradient.add_(partial.sum(0));
    return;
  }
  cpu::row_kernels<float>().column_sums(input<float>(partial), partial.size(1),
                                        output<float>(gradient), partial.size(0), partial.size(1));
}

}  // namespace temper::trainer
