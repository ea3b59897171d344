#include "trainer/ops/head_scores.h"

#include <vector>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/head_products.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct HeadOf : torch::CustomClassHolder {
  OutputHead head;
};

struct Function : torch::autograd::Function<Function> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, at::TensorList leaves,
                            const at::Tensor& positions,
                            const c10::intrusive_ptr<HeadOf>& with) {
    const at::Tensor where = sent_to(hidden.device(), positions);
    const at::Tensor rows = hidden.reshape({-1, hidden.size(-1)}).index_select(0, where);
    at::Tensor scores = at::empty({rows.size(0), with->head.weight.size(0)},
                                  hidden.options().dtype(at::kFloat));
    HeadProducts(with->head, rows, 0).logits_into(scores);
    ctx->save_for_backward({hidden, where});
    ctx->saved_data["head"] = c10::IValue::make_capsule(with);
    ctx->saved_data["inputs"] = static_cast<int64_t>(3 + leaves.size());
    return scores;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &hidden = saved[0], &positions = saved[1];
    const auto with = c10::static_intrusive_pointer_cast<HeadOf>(ctx->saved_data["head"].toCapsule());
    const at::Tensor all = hidden.reshape({-1, hidden.size(-1)});
    const at::Tensor rows = all.index_select(0, positions);
    HeadProducts products(with->head, rows, 0);
    at::Tensor dx = at::empty_like(rows);
    products.gradients(grads.front().to(hidden.options(), false, /*copy=*/true), dx);
    variable_list result(static_cast<size_t>(ctx->saved_data["inputs"].toInt()));
    result[0] = add_at(dx, positions, hidden.sizes());
    return result;
  }
};

}  // namespace

at::Tensor head_scores(const at::Tensor& hidden, const OutputHead& head,
                       const at::Tensor& positions) {
  auto with = c10::make_intrusive<HeadOf>();
  with->head = head;
  const std::vector<at::Tensor> leaves = head_leaves(head);
  return Function::apply(hidden, at::TensorList(leaves), positions, with);
}

}  // namespace temper::trainer
