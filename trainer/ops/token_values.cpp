#include "trainer/ops/token_values.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/head_products.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// [n, D] float32, on the host: they are few, and a value is one product.
at::Tensor rows_at(const at::Tensor& hidden, const at::Tensor& positions) {
  const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)});
  return rows.index_select(0, positions.to(hidden.device())).to(at::kFloat).cpu();
}

struct Function : torch::autograd::Function<Function> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& positions) {
    const at::Tensor rows = rows_at(hidden, positions);
    const int64_t dim = rows.size(1);
    at::Tensor values = at::empty({rows.size(0)}, rows.options());
    const at::Tensor host_weight = weight.cpu(), host_bias = bias.cpu();
    const float *x = input<float>(rows), *w = input<float>(host_weight),
                *b = input<float>(host_bias);
    float* value = output<float>(values);
    at::parallel_for(0, rows.size(0), 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        double sum = *b;
        for (int64_t d = 0; d < dim; ++d) sum += static_cast<double>(x[i * dim + d]) * w[d];
        value[i] = static_cast<float>(sum);
      }
    });
    ctx->save_for_backward({hidden, weight, bias, positions});
    return values;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &hidden = saved[0], &weight = saved[1], &bias = saved[2],
                     &positions = saved[3];
    const at::Tensor grad = grads.front().unsqueeze(1);
    const at::Tensor together = at::zeros_like(positions);
    const at::Device device = hidden.device();
    float32_gradient(weight).add_(
        add_at(rows_at(hidden, positions) * grad, together, weight.sizes()).to(device));
    float32_gradient(bias).add_(
        add_at(grad.contiguous(), together, {1, 1}).squeeze(0).to(device));
    const at::Tensor dx = (grad * weight.cpu()).to(hidden.scalar_type());
    return {add_at(dx, positions, hidden.sizes()).to(device), at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

}  // namespace

at::Tensor token_values(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& positions) {
  TEMPER_CHECK(weight.numel() == hidden.size(-1) && bias.numel() == 1,
               "a weight for each feature, and a bias");
  return Function::apply(hidden, weight, bias, positions);
}

}  // namespace temper::trainer
