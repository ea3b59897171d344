#include "trainer/ops/checkpoint.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Body : torch::CustomClassHolder {
  std::function<at::Tensor(const at::Tensor&)> f;
};

struct Checkpoint : torch::autograd::Function<Checkpoint> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const c10::intrusive_ptr<Body>& body) {
    ctx->save_for_backward({x});
    ctx->saved_data["body"] = c10::IValue::make_capsule(body);
    return body->f(x);  // autograd is off in here
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto body = c10::static_intrusive_pointer_cast<Body>(ctx->saved_data["body"].toCapsule());
    const at::AutoGradMode on(true);
    at::Tensor x = ctx->get_saved_variables()[0].detach().requires_grad_(true);
    const at::Tensor y = body->f(x);
    torch::autograd::backward({y}, {grads[0]});
    return {x.grad(), {}};
  }
};

}  // namespace

at::Tensor checkpoint(const std::function<at::Tensor(const at::Tensor&)>& f, const at::Tensor& x) {
  auto body = c10::make_intrusive<Body>();
  body->f = f;
  // Without a gradient at x the node would not run, and the parameters inside f would get none.
  return Checkpoint::apply(
      at::GradMode::is_enabled() && !x.requires_grad() ? x.detach().requires_grad_(true) : x, body);
}

}  // namespace temper::trainer
