#include "trainer/ops/rope.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void rotate(const at::Tensor& qkv, const at::Tensor& cos, const at::Tensor& sin, int64_t heads,
            int64_t head_dim, float sign) {
  const int64_t stride = qkv.size(1);
  const int64_t half = cos.size(1);
  if (const cuda::Kernels* device = kernels_for(qkv)) {
    launch(qkv, device->rope, element_of(qkv),
           cuda::RopeView{.x = qkv.mutable_data_ptr(),
                          .stride = stride,
                          .cos = input<float>(cos),
                          .sin = input<float>(sin),
                          .rows = qkv.size(0),
                          .heads = heads,
                          .dim = head_dim,
                          .half = half,
                          .sign = sign});
    return;
  }
  with_kernel_type(qkv.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, qkv.size(0), 32, [&](int64_t begin, int64_t end) {
      cpu::row_kernels<T>().rope(output<T>(qkv) + begin * stride, stride,
                                 input<float>(cos) + begin * half, input<float>(sin) + begin * half,
                                 end - begin, heads, head_dim, 2 * half, sign);
    });
  });
}

struct Rope : torch::autograd::Function<Rope> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv, const at::Tensor& cos,
                            const at::Tensor& sin, int64_t heads, int64_t head_dim) {
    TEMPER_CHECK(qkv.is_contiguous() && cos.is_contiguous() && sin.is_contiguous() &&
                     cos.size(0) == qkv.size(0),
                 "rope takes a contiguous qkv and one row of angles a token");
    rotate(qkv, cos, sin, heads, head_dim, 1.0f);
    ctx->mark_dirty({qkv});
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["head_dim"] = head_dim;
    return qkv;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    rotate(grads[0], saved[0], saved[1], ctx->saved_data["heads"].toInt(),
           ctx->saved_data["head_dim"].toInt(), -1.0f);
    return {grads[0], {}, {}, {}, {}};
  }
};

}  // namespace

at::Tensor rope(const at::Tensor& qkv, const RopeAngles& angles, int64_t heads, int64_t head_dim) {
  return Rope::apply(qkv, angles.cos, angles.sin, heads, head_dim);
}

}  // namespace temper::trainer
