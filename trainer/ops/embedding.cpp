#include "trainer/ops/embedding.h"

#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// gradient[id] += dy of the token, for ids that are not negative. Threads share out the columns, so
// that every element is summed in token order.
void add_rows(const at::Tensor& dy, const at::Tensor& ids, const at::Tensor& gradient) {
  const int64_t dim = dy.size(-1);
  if (kernels_for(dy)) {
    const at::Tensor none = ids.lt(0).unsqueeze(1);
    add_at_rows(gradient, ids.clamp_min(0), dy.to(at::kFloat).masked_fill(none, 0));
    return;
  }
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
    // Of every token, since how many take one is not known without waiting for a device.
    return at::where(slots.ge(0).unsqueeze(1), values.index_select(0, slots.clamp_min(0)), found);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    add_rows(grads[0].contiguous(), saved[1], float32_gradient(saved[0]));
    return {{}, {}, {}};
  }
};

// gradient[:, id] += dh of the token. Threads share out the ranks.
void add_columns(const at::Tensor& dh, const at::Tensor& ids, const at::Tensor& gradient) {
  const int64_t rank = dh.size(1), vocabulary = gradient.size(1);
  if (kernels_for(dh)) {
    add_at_rows(gradient.t(), ids, dh);
    return;
  }
  const int64_t* id = ids.const_data_ptr<int64_t>();
  const float* from = dh.const_data_ptr<float>();
  float* to = gradient.mutable_data_ptr<float>();
  at::parallel_for(0, rank, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t t = 0; t < ids.numel(); ++t) to[r * vocabulary + id[t]] += from[t * rank + r];
    }
  });
}

// found + h B^T with h = scale A_:,ids^T [M, R], rounded once.
struct AddLowRank : torch::autograd::Function<AddLowRank> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& found, const at::Tensor& a,
                            const at::Tensor& b, const at::Tensor& ids, double scale) {
    const at::Tensor h = a.detach().index_select(1, ids).t().contiguous().mul_(scale);
    ctx->save_for_backward({a, b, ids, h});
    ctx->saved_data["scale"] = scale;
    at::Tensor y = at::empty_like(found);
    gemm(y, h, b.t(), {.add = found});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &a = saved[0], &b = saved[1], &h = saved[3];
    const at::Tensor dy = grads[0].contiguous();
    if (a.requires_grad()) {
      at::Tensor dh = at::empty(h.sizes(), h.options().dtype(at::kFloat));
      gemm(dh, dy, b);
      add_columns(dh.mul_(ctx->saved_data["scale"].toDouble()), saved[2], float32_gradient(a));
    }
    if (b.requires_grad()) gemm(float32_gradient(b), dy.t(), h, {.accumulate = true});
    return {dy, {}, {}, {}, {}};
  }
};

// Which of the trained rows each token takes; -1: none.
at::Tensor slots_of(const at::Tensor& token_ids, const at::Tensor& rows, int64_t vocabulary) {
  at::Tensor slot = at::full({vocabulary}, -1, token_ids.options());
  slot.index_copy_(0, rows, at::arange(rows.numel(), token_ids.options()));
  return slot.index_select(0, token_ids);
}

}  // namespace

at::Tensor embed(const at::Tensor& token_ids, const Embedding& embedding) {
  at::Tensor found = Lookup::apply(embedding.weight, token_ids);
  if (embedding.rows && embedding.rows->context->enabled) {
    const at::Tensor slots =
        slots_of(token_ids, embedding.rows->ids, embedding.weight.size(0));
    found = Replace::apply(embedding.rows->values, found, slots);
  }
  if (embedding.low_rank && embedding.low_rank->context->enabled) {
    const LowRankRows& lora = *embedding.low_rank;
    found = AddLowRank::apply(found, lora.a, lora.b, token_ids.contiguous(), lora.scale);
  }
  return found;
}

}  // namespace temper::trainer
