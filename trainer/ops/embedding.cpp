#include "trainer/ops/embedding.h"

#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/dispatch.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// gradient[id] += dy of the token, for ids that are not negative. Threads share out the columns, so
// that every element is summed in token order.
void add_rows(const at::Tensor& dy, const at::Tensor& ids, const at::Tensor& gradient) {
  const int64_t dim = dy.size(-1);
  const int64_t* id = ids.const_data_ptr<int64_t>();
  with_kernel_type(dy.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, dim, 64, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < ids.numel(); ++t) {
        if (id[t] < 0) continue;
        cpu::row_kernels<T>().add(input<T>(dy) + t * dim + begin,
                                  output<float>(gradient) + id[t] * dim + begin, end - begin);
      }
    });
  });
}

struct Lookup : torch::autograd::Function<Lookup> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& weight,
                            const at::Tensor& token_ids) {
    ctx->save_for_backward({weight, token_ids});
    return at::embedding(weight, token_ids);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    add_rows(grads[0].contiguous(), saved[1].contiguous(), float32_gradient(saved[0]));
    return {{}, {}};
  }
};

// Puts trained rows over those that were found. The frozen ones beneath have no gradient.
struct Replace : torch::autograd::Function<Replace> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& values, const at::Tensor& found,
                            const at::Tensor& slots) {
    ctx->save_for_backward({values, slots});
    const at::Tensor tokens = slots.ge(0).nonzero().squeeze(1);
    return found.index_copy(0, tokens, values.index_select(0, slots.index_select(0, tokens)));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    add_rows(grads[0].contiguous(), saved[1], float32_gradient(saved[0]));
    return {{}, {}, {}};
  }
};

// Which of the trained rows each token takes; -1: none.
at::Tensor slots_of(const at::Tensor& token_ids, const at::Tensor& rows) {
  const at::Tensor same = token_ids.unsqueeze(1).eq(rows.unsqueeze(0));  // [M, n]
  const at::Tensor number = at::arange(1, rows.numel() + 1, at::kLong);
  return same.mul(number).amax(1) - 1;
}

}  // namespace

at::Tensor embed(const at::Tensor& token_ids, const Embedding& embedding) {
  at::Tensor found = Lookup::apply(embedding.weight, token_ids);
  if (embedding.rows) {
    found = Replace::apply(embedding.rows->values, found, slots_of(token_ids, embedding.rows->ids));
  }
  return embedding.adapted ? embedding.adapted(token_ids, found) : found;
}

}  // namespace temper::trainer
