#include "trainer/ops/checkpoint.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Body : torch::CustomClassHolder {
  Checkpointed f;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& also,
                            const c10::intrusive_ptr<Body>& body) {
    ctx->save_for_backward({x, also.value_or(at::Tensor())});
    ctx->saved_data["body"] = c10::IValue::make_capsule(body);
    return body->f(x, also.value_or(at::Tensor()));  // autograd is off in here
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto body = c10::static_intrusive_pointer_cast<Body>(ctx->saved_data["body"].toCapsule());
    const at::AutoGradMode on(true);
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor x = saved[0].detach().requires_grad_(true);
    at::Tensor also;
    if (saved[1].defined()) also = saved[1].detach().requires_grad_(saved[1].requires_grad());
    const at::Tensor y = body->f(x, also);
    torch::autograd::backward({y}, {grads[0]});
    return {x.grad(), also.defined() ? also.grad() : at::Tensor(), {}};
  }
};

}  // namespace

at::Tensor checkpoint(const Checkpointed& f, const at::Tensor& x, const at::Tensor& also) {
  auto body = c10::make_intrusive<Body>();
  body->f = f;
  // Without a gradient at x the node would not run, and the parameters inside f would get none.
  return Checkpoint::apply(
      at::GradMode::is_enabled() && !x.requires_grad() ? x.detach().requires_grad_(true) : x,
      also.defined() ? std::optional(also) : std::nullopt, body);
}

}  // namespace temper::trainer
