#include "trainer/ops/scale_features.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The sum over rows of `product` [M, D] float32, added to `sums` [D].
void add_column_sums(const at::Tensor& product, at::Tensor sums) {
  if (kernels_for(product)) {
    sums.add_(product.sum(0));
    return;
  }
  const int64_t columns = product.size(1);
  at::parallel_for(0, columns, 64, [&](int64_t begin, int64_t end) {
    cpu::row_kernels<float>().column_sums(input<float>(product) + begin, columns,
                                          output<float>(sums) + begin, product.size(0),
                                          end - begin);
  });
}

struct ScaleFeatures : torch::autograd::Function<ScaleFeatures> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& scale) {
    TEMPER_CHECK(x.dim() == 2 && x.size(1) == scale.numel(),
                 "scale_features takes rows of as many features as there are scales");
    ctx->save_for_backward({x, scale});
    return at::mul(x, scale.view(-1)).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &scale = saved[1], &dy = grads[0];
    if (scale.requires_grad()) {
      add_column_sums(at::mul(dy.to(at::kFloat), x).contiguous(), float32_gradient(scale).view(-1));
    }
    at::Tensor dx;
    if (ctx->needs_input_grad(0)) dx = at::mul(dy, scale.view(-1)).to(x.scalar_type());
    return {dx, {}};
  }
};

}  // namespace

at::Tensor scale_features(const at::Tensor& x, const at::Tensor& scale) {
  return ScaleFeatures::apply(x, scale);
}

}  // namespace temper::trainer
