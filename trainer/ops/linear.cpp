#include "trainer/ops/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/dispatch.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LinearState : torch::CustomClassHolder {
  Projection projection;
  std::function<at::Tensor()> x_again;
};

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

// Column sums of dy [rows, n], added to a bias gradient; threads share out the columns.
void add_column_sums(const at::Tensor& dy, const at::Tensor& gradient) {
  with_kernel_type(dy.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, dy.size(1), 64, [&](int64_t begin, int64_t end) {
      cpu::row_kernels<T>().column_sums(input<T>(dy) + begin, dy.stride(0),
                                        output<float>(gradient) + begin, dy.size(0), end - begin);
    });
  });
}

bool any_requires_grad(const std::vector<at::Tensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& t) { return t.requires_grad(); });
}

struct Linear : torch::autograd::Function<Linear> {
  // `parameters` only tie the node to the leaves, so that their hooks run after it; the state holds
  // them by name.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList parameters,
                            const std::optional<at::Tensor>& residual,
                            const c10::intrusive_ptr<LinearState>& state) {
    const Projection& p = state->projection;
    TEMPER_CHECK(x.is_contiguous() && x.size(-1) == p.weight.size(1),
                 "linear takes a contiguous x of the weight's width");
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = p.weight.size(0);
    at::Tensor y = at::empty(shape, x.options());
    gemm(rows_of(y), rows_of(x), p.weight.t(),
         {.add = residual ? rows_of(*residual) : at::Tensor()});
    if (p.bias.defined()) y.add_(p.bias);
    ctx->saved_data["state"] = c10::IValue::make_capsule(state);
    ctx->saved_data["parameters"] = static_cast<int64_t>(parameters.size());
    ctx->saved_data["residual"] = residual.has_value();
    if (!state->x_again && any_requires_grad(p.weights)) ctx->save_for_backward({x});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto state =
        c10::static_intrusive_pointer_cast<LinearState>(ctx->saved_data["state"].toCapsule());
    const Projection& p = state->projection;
    const at::Tensor dy = grads[0].contiguous();
    const at::Tensor dy_rows = rows_of(dy);
    const int64_t parameters = ctx->saved_data["parameters"].toInt();
    variable_list result(1 + parameters + 2);  // x, parameters, residual, state
    if (ctx->needs_input_grad(0)) {
      std::vector<int64_t> shape = dy.sizes().vec();
      shape.back() = p.weight.size(1);
      result[0] = at::empty(shape, dy.options());
      gemm(rows_of(result[0]), dy_rows, p.weight);
    }
    if (ctx->saved_data["residual"].toBool() && ctx->needs_input_grad(1 + parameters))
      result[1 + parameters] = dy;
    if (any_requires_grad(p.weights)) {
      const at::Tensor x =
          rows_of(state->x_again ? state->x_again() : ctx->get_saved_variables()[0]);
      int64_t first = 0;
      for (const at::Tensor& weight : p.weights) {
        const at::Tensor part = dy_rows.narrow(1, first, weight.size(0));
        if (weight.requires_grad())
          gemm(float32_gradient(weight), part.t(), x, {.accumulate = true});
        first += weight.size(0);
      }
    }
    int64_t first = 0;
    for (const at::Tensor& bias : p.biases) {
      if (bias.requires_grad())
        add_column_sums(dy_rows.narrow(1, first, bias.size(0)), float32_gradient(bias));
      first += bias.size(0);
    }
    state->x_again = {};  // lets go of what it holds: the graph may live longer than its backward
    return result;
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const Projection& projection, const at::Tensor& residual,
                  std::function<at::Tensor()> x_again) {
  auto state = c10::make_intrusive<LinearState>();
  state->projection = projection;
  state->x_again = std::move(x_again);
  std::vector<at::Tensor> parameters = projection.weights;
  parameters.insert(parameters.end(), projection.biases.begin(), projection.biases.end());
  return Linear::apply(x, at::TensorList(parameters),
                       residual.defined() ? std::optional(residual) : std::nullopt, state);
}

}  // namespace temper::trainer
