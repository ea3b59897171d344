#include "trainer/ops/swiglu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Swiglu : torch::autograd::Function<Swiglu> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& gate_up) {
    ctx->save_for_backward({gate_up});
    return swiglu_again(gate_up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const at::Tensor gate_up = ctx->get_saved_variables()[0];
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor din = at::empty_like(gate_up);
    const int64_t dim = dout.size(-1);
    if (const cuda::Kernels* device = kernels_for(dout)) {
      launch(dout, device->swiglu_backward, element_of(dout), dout.const_data_ptr(),
             gate_up.const_data_ptr(), din.mutable_data_ptr(), dout.numel() / dim, dim);
      return {din};
    }
    with_kernel_type(dout.scalar_type(), [&](auto type) {
      using T = decltype(type);
      at::parallel_for(0, dout.numel() / dim, 8, [&](int64_t begin, int64_t end) {
        cpu::row_kernels<T>().swiglu_backward(input<T>(dout) + begin * dim,
                                              input<T>(gate_up) + begin * 2 * dim,
                                              output<T>(din) + begin * 2 * dim, end - begin, dim);
      });
    });
    return {din};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up) { return Swiglu::apply(gate_up); }

at::Tensor swiglu_again(const at::Tensor& gate_up) {
  TEMPER_CHECK(gate_up.is_contiguous(), "swiglu takes a contiguous gate_up");
  std::vector<int64_t> shape = gate_up.sizes().vec();
  const int64_t dim = shape.back() /= 2;
  at::Tensor out = at::empty(shape, gate_up.options());
  if (const cuda::Kernels* device = kernels_for(out)) {
    launch(out, device->swiglu, element_of(out), gate_up.const_data_ptr(), out.mutable_data_ptr(),
           out.numel() / dim, dim);
    return out;
  }
  with_kernel_type(out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, out.numel() / dim, 8, [&](int64_t begin, int64_t end) {
      cpu::row_kernels<T>().swiglu(input<T>(gate_up) + begin * 2 * dim,
                                   output<T>(out) + begin * dim, end - begin, dim);
    });
  });
  return out;
}

}  // namespace temper::trainer
