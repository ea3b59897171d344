#include "trainer/models/block_hooks.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/models/model.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Where : torch::CustomClassHolder {
  BlockHooks* hooks = nullptr;
  int64_t block = 0;
};

// The identity, whose backward tells the hooks.
template <void (BlockHooks::*tell)(int64_t)>
struct Boundary : torch::autograd::Function<Boundary<tell>> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const c10::intrusive_ptr<Where>& where) {
    ctx->saved_data["where"] = c10::IValue::make_capsule(where);
    return x;
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto where =
        c10::static_intrusive_pointer_cast<Where>(ctx->saved_data["where"].toCapsule());
    (where->hooks->*tell)(where->block);
    return {grads[0], {}};
  }
};

template <void (BlockHooks::*tell)(int64_t)>
at::Tensor boundary(const at::Tensor& x, BlockHooks* hooks, int64_t block) {
  if (!at::GradMode::is_enabled() || !x.requires_grad()) return x;
  auto where = c10::make_intrusive<Where>();
  where->hooks = hooks;
  where->block = block;
  return Boundary<tell>::apply(x, where);
}

}  // namespace

at::Tensor enter_block(const at::Tensor& x, BlockHooks* hooks, int64_t block) {
  if (hooks == nullptr) return x;
  hooks->before_forward(block);
  return boundary<&BlockHooks::after_backward>(x, hooks, block);
}

at::Tensor leave_block(const at::Tensor& x, BlockHooks* hooks, int64_t block) {
  if (hooks == nullptr) return x;
  hooks->after_forward(block, at::GradMode::is_enabled() && x.requires_grad());
  return boundary<&BlockHooks::before_backward>(x, hooks, block);
}

void end_passes(Model& model) {
  if (BlockHooks* hooks = model.block_hooks()) hooks->end_passes();
}

}  // namespace temper::trainer
