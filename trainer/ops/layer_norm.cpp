#include "trainer/ops/layer_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/low_rank.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of each row: its mean and 1 / sqrt(variance + eps), [2, rows].
at::Tensor empty_statistics(const at::Tensor& x) {
  return at::empty({2, x.numel() / x.size(-1)}, x.options().dtype(at::kFloat));
}

void forward_rows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps,
                  const at::Tensor& y, const at::Tensor& statistics) {
  const int64_t dim = x.size(-1), rows = statistics.size(1);
  float* mean = output<float>(statistics);
  float* rstd = mean + rows;
  if (const cuda::Kernels* device = kernels_for(x)) {
    launch(x, device->layer_norm, element_of(x),
           cuda::NormView{.x = x.const_data_ptr(),
                          .stride_x = dim,
                          .weight = weight.const_data_ptr(),
                          .bias = bias.const_data_ptr(),
                          .y = y.mutable_data_ptr(),
                          .stride_y = dim,
                          .mean = mean,
                          .rstd = rstd,
                          .rows = rows,
                          .dim = dim,
                          .eps = static_cast<float>(eps)});
    return;
  }
  with_kernel_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, rows, kRowBlock, [&](int64_t begin, int64_t end) {
      cpu::row_kernels<T>().layer_norm(input<T>(x) + begin * dim, input<T>(weight), input<T>(bias),
                                       output<T>(y) + begin * dim, mean + begin, rstd + begin,
                                       end - begin, dim, static_cast<float>(eps));
    });
  });
}

// dx, and sums over runs of rows of the gradient of the weight.
at::Tensor backward_rows(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& statistics, const at::Tensor& residual,
                         const at::Tensor& dx) {
  const int64_t dim = x.size(-1), rows = statistics.size(1);
  const float* mean = input<float>(statistics);
  const float* rstd = mean + rows;
  if (const cuda::Kernels* device = kernels_for(x)) {
    at::Tensor partial =
        at::empty({device->norm_partials(rows, dim), dim}, statistics.options());
    launch(x, device->layer_norm_backward, element_of(x),
           cuda::NormBackwardView{
               .dy = dy.const_data_ptr(),
               .stride_dy = dim,
               .x = x.const_data_ptr(),
               .stride_x = dim,
               .weight = weight.const_data_ptr(),
               .mean = mean,
               .rstd = rstd,
               .residual = residual.defined() ? residual.const_data_ptr() : nullptr,
               .dx = dx.mutable_data_ptr(),
               .stride_dx = dim,
               .partial = output<float>(partial),
               .rows = rows,
               .dim = dim});
    return partial;
  }
  const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
  at::Tensor partial = at::zeros({blocks, dim}, statistics.options());
  with_kernel_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t row = block * kRowBlock;
        const int64_t at = row * dim;
        cpu::row_kernels<T>().layer_norm_backward(
            input<T>(dy) + at, input<T>(x) + at, input<T>(weight), mean + row, rstd + row,
            residual.defined() ? input<T>(residual) + at : nullptr, output<T>(dx) + at,
            output<float>(partial) + block * dim, std::min(kRowBlock, rows - row), dim);
      }
    });
  });
  return partial;
}

struct LayerNorm : torch::autograd::Function<LayerNorm> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                               const at::Tensor& bias, double eps) {
    TEMPER_CHECK(x.is_contiguous(), "layer_norm takes a contiguous x");
    at::Tensor y = at::empty_like(x);
    const at::Tensor statistics = empty_statistics(x);
    forward_rows(x, weight, bias, eps, y, statistics);
    ctx->save_for_backward({x, weight, bias, statistics});
    ctx->set_materialize_grads(false);
    return {x, y};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &bias = saved[2];
    if (!grads[1].defined()) return {grads[0], {}, {}, {}};
    const at::Tensor dy = grads[1].contiguous();
    const at::Tensor residual = grads[0].defined() ? grads[0].contiguous() : at::Tensor();
    at::Tensor dx = at::empty_like(x);
    const at::Tensor partial = backward_rows(dy, x, weight, saved[3], residual, dx);
    if (weight.requires_grad()) add_partial_sums(partial, float32_gradient(weight));
    if (bias.requires_grad()) add_column_sums(dy.view({-1, dy.size(-1)}), float32_gradient(bias));
    return {dx, {}, {}, {}};
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> layer_norm(const at::Tensor& x, const at::Tensor& weight,
                                             const at::Tensor& bias, double eps) {
  variable_list out = LayerNorm::apply(x, weight, bias, eps);
  return {out[0], out[1]};
}

at::Tensor layer_norm_again(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            double eps) {
  at::Tensor y = at::empty_like(x);
  forward_rows(x, weight, bias, eps, y, empty_statistics(x));
  return y;
}

}  // namespace temper::trainer
