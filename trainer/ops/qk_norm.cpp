#include "trainer/ops/qk_norm.h"

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

// Where the heads of one kind stand in a row of qkv.
struct Heads {
  int64_t first, count;
};

at::Tensor at_column(const at::Tensor& rows, int64_t column) {
  return rows.narrow(1, column, rows.size(1) - column);
}

struct QkNorm : torch::autograd::Function<QkNorm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv, const at::Tensor& q_weight,
                            const at::Tensor& k_weight, int64_t q_heads, int64_t k_heads,
                            double eps) {
    TEMPER_CHECK(qkv.is_contiguous(), "qk_norm takes a contiguous qkv");
    at::Tensor out = qkv.clone();
    const int64_t rows = qkv.size(0), stride = qkv.size(1), dim = q_weight.size(0);
    const at::Tensor weights[2] = {q_weight, k_weight};
    const Heads heads[2] = {{0, q_heads}, {q_heads, k_heads}};
    variable_list saved = {qkv, q_weight, k_weight};
    for (int kind = 0; kind < 2; ++kind) {
      const auto [first, count] = heads[kind];
      at::Tensor rstd = at::empty({rows, count}, qkv.options().dtype(at::kFloat));
      saved.push_back(rstd);
      if (const cuda::Kernels* device = kernels_for(qkv)) {
        launch(qkv, device->rms_norm, element_of(qkv),
               cuda::NormView{.x = at_column(qkv, first * dim).const_data_ptr(),
                              .stride_x = stride,
                              .weight = weights[kind].const_data_ptr(),
                              .y = at_column(out, first * dim).mutable_data_ptr(),
                              .stride_y = stride,
                              .rstd = output<float>(rstd),
                              .rows = rows,
                              .heads = count,
                              .dim = dim,
                              .eps = static_cast<float>(eps)});
        continue;
      }
      with_kernel_type(qkv.scalar_type(), [&, first = first, count = count](auto type) {
        using T = decltype(type);
        at::parallel_for(0, rows, kRowBlock, [&](int64_t begin, int64_t end) {
          const int64_t offset = begin * stride + first * dim;
          cpu::row_kernels<T>().rms_norm(input<T>(qkv) + offset, stride, input<T>(weights[kind]),
                                         output<T>(out) + offset, stride,
                                         output<float>(rstd) + begin * count, end - begin, count,
                                         dim, static_cast<float>(eps));
        });
      });
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["q_heads"] = q_heads;
    ctx->saved_data["k_heads"] = k_heads;
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& qkv = saved[0];
    const at::Tensor dy = grads[0].contiguous();
    at::Tensor dx = dy.clone();
    const int64_t rows = qkv.size(0), stride = qkv.size(1), dim = saved[1].size(0);
    const int64_t q_heads = ctx->saved_data["q_heads"].toInt(),
                  k_heads = ctx->saved_data["k_heads"].toInt();
    const Heads heads[2] = {{0, q_heads}, {q_heads, k_heads}};
    const int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
    for (int kind = 0; kind < 2; ++kind) {
      const auto [first, count] = heads[kind];
      const at::Tensor &weight = saved[1 + kind], &rstd = saved[3 + kind];
      if (const cuda::Kernels* device = kernels_for(qkv)) {
        at::Tensor partial =
            at::empty({device->norm_partials(rows * count, dim), dim}, rstd.options());
        launch(qkv, device->rms_norm_backward, element_of(qkv),
               cuda::NormBackwardView{.dy = at_column(dy, first * dim).const_data_ptr(),
                                      .stride_dy = stride,
                                      .x = at_column(qkv, first * dim).const_data_ptr(),
                                      .stride_x = stride,
                                      .weight = weight.const_data_ptr(),
                                      .rstd = input<float>(rstd),
                                      .dx = at_column(dx, first * dim).mutable_data_ptr(),
                                      .stride_dx = stride,
                                      .partial = output<float>(partial),
                                      .rows = rows,
                                      .heads = count,
                                      .dim = dim});
        if (weight.requires_grad()) add_partial_sums(partial, float32_gradient(weight));
        continue;
      }
      at::Tensor partial = at::zeros({blocks, dim}, rstd.options());
      with_kernel_type(qkv.scalar_type(), [&, first = first, count = count](auto type) {
        using T = decltype(type);
        at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
          for (int64_t block = begin; block < end; ++block) {
            const int64_t row = block * kRowBlock;
            const int64_t offset = row * stride + first * dim;
            cpu::row_kernels<T>().rms_norm_backward(
                input<T>(dy) + offset, stride, input<T>(qkv) + offset, stride, input<T>(weight),
                input<float>(rstd) + row * count, nullptr, output<T>(dx) + offset, stride,
                output<float>(partial) + block * dim, std::min(kRowBlock, rows - row), count, dim);
          }
        });
      });
      if (weight.requires_grad()) add_partial_sums(partial, float32_gradient(weight));
    }
    return {dx, {}, {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor qk_norm(const at::Tensor& qkv, const at::Tensor& q_weight, const at::Tensor& k_weight,
                   int64_t q_heads, int64_t k_heads, double eps) {
  return QkNorm::apply(qkv, q_weight, k_weight, q_heads, k_heads, eps);
}

}  // namespace temper::trainer
