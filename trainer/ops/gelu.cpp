#include "trainer/ops/gelu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kElementsATask = 8192;

struct GeluNode : torch::autograd::Function<GeluNode> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, bool tanh) {
    ctx->save_for_backward({x});
    ctx->saved_data["tanh"] = tanh;
    return gelu_again(x, tanh ? Gelu::kTanh : Gelu::kErf);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor x = ctx->get_saved_variables()[0];
    const bool tanh = ctx->saved_data["tanh"].toBool();
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dx = at::empty_like(x);
    if (const cuda::Kernels* device = kernels_for(x)) {
      launch(x, device->gelu_backward, element_of(x), dout.const_data_ptr(), x.const_data_ptr(),
             dx.mutable_data_ptr(), x.numel(), tanh);
      return {dx, {}};
    }
    with_kernel_type(x.scalar_type(), [&](auto type) {
      using T = decltype(type);
      at::parallel_for(0, x.numel(), kElementsATask, [&](int64_t begin, int64_t end) {
        cpu::row_kernels<T>().gelu_backward(input<T>(dout) + begin, input<T>(x) + begin,
                                            output<T>(dx) + begin, end - begin, tanh);
      });
    });
    return {dx, {}};
  }
};

}  // namespace

at::Tensor gelu(const at::Tensor& x, Gelu form) { return GeluNode::apply(x, form == Gelu::kTanh); }

at::Tensor gelu_again(const at::Tensor& x, Gelu form) {
  TEMPER_CHECK(x.is_contiguous(), "gelu takes a contiguous x");
  const bool tanh = form == Gelu::kTanh;
  at::Tensor out = at::empty_like(x);
  if (const cuda::Kernels* device = kernels_for(x)) {
    launch(x, device->gelu, element_of(x), x.const_data_ptr(), out.mutable_data_ptr(), x.numel(),
           tanh);
    return out;
  }
  with_kernel_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, x.numel(), kElementsATask, [&](int64_t begin, int64_t end) {
      cpu::row_kernels<T>().gelu(input<T>(x) + begin, output<T>(out) + begin, end - begin, tanh);
    });
  });
  return out;
}

}  // namespace temper::trainer
