#include "trainer/ops/embedding.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Embedding : torch::autograd::Function<Embedding> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight,
                            const at::Tensor& token_ids) {
    ctx->save_for_backward({weight, token_ids});
    return at::embedding(weight, token_ids);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor gradient = float32_gradient(saved[0]);
    const at::Tensor ids = saved[1].contiguous();
    const at::Tensor dy = grads[0].contiguous();
    const int64_t dim = dy.size(-1);
    const int64_t* id = ids.const_data_ptr<int64_t>();
    with_kernel_type(dy.scalar_type(), [&](auto type) {
      using T = decltype(type);
      // Threads share out the columns, so that every element is summed in token order.
      at::parallel_for(0, dim, 64, [&](int64_t begin, int64_t end) {
        for (int64_t t = 0; t < ids.numel(); ++t) {
          cpu::row_kernels<T>().add(input<T>(dy) + t * dim + begin,
                                    output<float>(gradient) + id[t] * dim + begin, end - begin);
        }
      });
    });
    return {{}, {}};
  }
};

}  // namespace

at::Tensor embed(const at::Tensor& token_ids, const at::Tensor& weight) {
  return Embedding::apply(weight, token_ids);
}

}  // namespace temper::trainer
