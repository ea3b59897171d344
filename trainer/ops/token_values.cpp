#include "trainer/ops/token_values.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/head_products.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// [n, D] float32.
at::Tensor rows_at(const at::Tensor& hidden, const at::Tensor& where) {
  return hidden.reshape({-1, hidden.size(-1)}).index_select(0, where).to(at::kFloat);
}

struct Function : torch::autograd::Function<Function> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden,
                            const at::Tensor& weight, const at::Tensor& bias,
                            const at::Tensor& positions) {
    const at::Tensor where = sent_to(hidden.device(), positions);
    ctx->save_for_backward({hidden, weight, bias, where});
    const at::Tensor rows = rows_at(hidden, where);
    if (kernels_for(hidden)) return at::addmv(bias, rows, weight[0]);
    const int64_t dim = rows.size(1);
    at::Tensor values = at::empty({rows.size(0)}, rows.options());
    const float *x = input<float>(rows), *w = input<float>(weight), *b = input<float>(bias);
    float* value = output<float>(values);
    at::parallel_for(0, rows.size(0), 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        double sum = *b;
        for (int64_t d = 0; d < dim; ++d) sum += static_cast<double>(x[i * dim + d]) * w[d];
        value[i] = static_cast<float>(sum);
      }
    });
    return values;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &hidden = saved[0], &weight = saved[1], &bias = saved[2], &where = saved[3];
    const at::Tensor grad = grads.front().unsqueeze(1), rows = rows_at(hidden, where);
    if (kernels_for(hidden)) {
      float32_gradient(weight).add_(at::mm(grad.t(), rows));
      float32_gradient(bias).add_(grad.sum());
    } else {
      const at::Tensor together = at::zeros_like(where);
      float32_gradient(weight).add_(add_at(rows * grad, together, weight.sizes()));
      float32_gradient(bias).add_(add_at(grad.contiguous(), together, {1, 1}).squeeze(0));
    }
    const at::Tensor dx = (grad * weight).to(hidden.scalar_type());
    return {add_at(dx, where, hidden.sizes()), at::Tensor(), at::Tensor(), at::Tensor()};
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
