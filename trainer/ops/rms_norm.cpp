#include "trainer/ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void forward_rows(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& y,
                  const at::Tensor& rstd) {
  const int64_t dim = x.size(-1);
  if (const cuda::Kernels* device = kernels_for(x)) {
    launch(x, device->rms_norm, element_of(x),
           cuda::NormView{.x = x.const_data_ptr(),
                          .stride_x = dim,
                          .weight = weight.const_data_ptr(),
                          .y = y.mutable_data_ptr(),
                          .stride_y = dim,
                          .rstd = output<float>(rstd),
                          .rows = x.numel() / dim,
                          .dim = dim,
                          .eps = static_cast<float>(eps)});
    return;
  }
  with_kernel_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, x.numel() / dim, kRowBlock, [&](int64_t begin, int64_t end) {
      cpu::row_kernels<T>().rms_norm(input<T>(x) + begin * dim, dim, input<T>(weight),
                                     output<T>(y) + begin * dim, dim, output<float>(rstd) + begin,
                                     end - begin, 1, dim, static_cast<float>(eps));
    });
  });
}

// dx, and sums over runs of rows of the gradient of the weight.
at::Tensor backward_rows(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& weight,
                         const at::Tensor& rstd, const at::Tensor& residual, const at::Tensor& dx) {
  const int64_t dim = x.size(-1);
  const int64_t rows = x.numel() / dim;
  if (const cuda::Kernels* device = kernels_for(x)) {
    at::Tensor partial = at::empty({device->norm_partials(rows, dim), dim}, rstd.options());
    launch(x, device->rms_norm_backward, element_of(x),
           cuda::NormBackwardView{
               .dy = dy.const_data_ptr(),
               .stride_dy = dim,
               .x = x.const_data_ptr(),
               .stride_x = dim,
               .weight = weight.const_data_ptr(),
               .rstd = input<float>(rstd),
               .residual = residual.defined() ? residual.const_data_ptr() : nullptr,
               .dx = dx.mutable_data_ptr(),
               .stride_dx = dim,
               .partial = output<float>(partial),
               .rows = rows,
               .dim = dim});
    return partial;
  }
  const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
  at::Tensor partial = at::zeros({blocks, dim}, rstd.options());
  with_kernel_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t row = block * kRowBlock;
        const int64_t at = row * dim;
        cpu::row_kernels<T>().rms_norm_backward(
            input<T>(dy) + at, dim, input<T>(x) + at, dim, input<T>(weight),
            input<float>(rstd) + row, residual.defined() ? input<T>(residual) + at : nullptr,
            output<T>(dx) + at, dim, output<float>(partial) + block * dim,
            std::min(kRowBlock, rows - row), 1, dim);
      }
    });
  });
  return partial;
}

struct RmsNorm : torch::autograd::Function<RmsNorm> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                               double eps) {
    TEMPER_CHECK(x.is_contiguous(), "rms_norm takes a contiguous x");
    at::Tensor y = at::empty_like(x);
    at::Tensor rstd = at::empty({x.numel() / x.size(-1)}, x.options().dtype(at::kFloat));
    forward_rows(x, weight, eps, y, rstd);
    ctx->save_for_backward({x, weight, rstd});
    ctx->set_materialize_grads(false);
    return {x, y};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2];
    if (!grads[1].defined()) return {grads[0], {}, {}};
    const at::Tensor dy = grads[1].contiguous();
    const at::Tensor residual = grads[0].defined() ? grads[0].contiguous() : at::Tensor();
    at::Tensor dx = at::empty_like(x);
    const at::Tensor partial = backward_rows(dy, x, weight, rstd, residual, dx);
    if (weight.requires_grad()) add_partial_sums(partial, float32_gradient(weight));
    return {dx, {}, {}};
  }
};

}  // namespace

std::pair<at::Tensor, at::Tensor> rms_norm(const at::Tensor& x, const at::Tensor& weight,
                                           double eps) {
  variable_list out = RmsNorm::apply(x, weight, eps);
  return {out[0], out[1]};
}

at::Tensor rms_norm_again(const at::Tensor& x, const at::Tensor& weight, double eps) {
  at::Tensor y = at::empty_like(x);
  forward_rows(x, weight, eps, y,
               at::empty({x.numel() / x.size(-1)}, x.options().dtype(at::kFloat)));
  return y;
}

}  // namespace temper::trainer
