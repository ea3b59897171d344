#include "trainer/ops/linear.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/gradient.h"

namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct LinearState : torch::CustomClassHolder {
  Projection projection;
  std::function<at::Tensor()> x_again;
  bool decoding = false;  // few rows on quantised weights, no gradient
  std::optional<Float8Scaling> float8;
};

at::Tensor rows_of(const at::Tensor& x) { return x.reshape({-1, x.size(-1)}); }

bool any_requires_grad(const std::vector<at::Tensor>& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [](const at::Tensor& t) { return t.requires_grad(); });
}

const LowRank* active(const Projection& p) {
  return p.low_rank && p.low_rank->context->enabled ? p.low_rank.get() : nullptr;
}

// All parts of a quantised weight, for one product; it lives no longer than that.
at::Tensor whole_weight(const Projection& p, at::ScalarType dtype) {
  if (p.weight.defined()) return p.weight;
  if (p.quantized.size() == 1) return dequantize(p.quantized.front(), dtype);
  at::Tensor whole =
      at::empty({first_row(p.rows, p.rows.size()), p.quantized.front().columns},
                p.quantized.front().codes.options().dtype(dtype));
  for (size_t i = 0; i < p.quantized.size(); ++i) {
    dequantize_rows(p.quantized[i], 0, p.rows[i], whole.narrow(0, first_row(p.rows, i), p.rows[i]));
  }
  return whole;
}

// A row or two (decoding): the weights are dequantised in registers, which saves writing them.
constexpr int64_t kFewRows = 16;

thread_local bool training_products = false;

bool decodes(const Projection& p, const at::Tensor& x) {
  return !p.quantized.empty() && x.size(0) <= kFewRows && !at::GradMode::is_enabled() &&
         !training_products;
}

void decoding_product(at::Tensor y, const at::Tensor& x, const at::Tensor& residual,
                      const Projection& p) {
  for (size_t part = 0; part < p.rows.size(); ++part) {
    multiply_quantized(y.narrow(1, first_row(p.rows, part), p.rows[part]), x, p.quantized[part]);
  }
  if (residual.defined()) y.add_(residual);
  const LowRank* lora = active(p);
  if (!lora) return;
  const at::Tensor h = low_rank_inner(*lora, x);
  for (size_t i = 0; i < lora->parts.size(); ++i) {
    const LowRankPart& own = lora->parts[i];
    at::Tensor part = y.narrow(1, first_row(p.rows, own.part), p.rows[own.part]);
    part.addmm_(lora->columns_of(h, i), own.b.t());
    if (own.bias.defined()) part.add_(own.bias, own.scale);
  }
}

// A matrix that parts share, cast once, when the first of them needs it.
class SharedFloat8 {
 public:
  SharedFloat8(at::Tensor matrix, Float8Scaling scaling)
      : matrix_(std::move(matrix)), scaling_(scaling) {}

  const Float8Matrix& get() {
    if (!cast_.codes.defined()) cast_ = to_float8(matrix_, Float8Role::kValue, scaling_);
    return cast_;
  }

 private:
  at::Tensor matrix_;
  Float8Scaling scaling_;
  Float8Matrix cast_;
};

// y_p = x W_p^T (+ residual) + h_p B_p^T, rounded once (float8: once a term).
void product_of_parts(at::Tensor y, const at::Tensor& x, const at::Tensor& weight,
                      const at::Tensor& residual, const Projection& p, const at::Tensor& h,
                      std::optional<Float8Scaling> float8) {
  std::optional<SharedFloat8> x8;
  if (float8) x8.emplace(x, *float8);
  size_t next = 0;
  int64_t first = 0;
  for (size_t part = 0; part < p.rows.size(); ++part) {
    const int64_t rows = p.rows[part];
    GemmOptions options{.weight = p.weight.defined()};
    if (residual.defined()) options.add = residual.narrow(1, first, rows);
    at::Tensor bias;
    double scale = 1;
    const LowRank* lora = h.defined() ? p.low_rank.get() : nullptr;
    if (lora && next < lora->parts.size() && lora->parts[next].part == part) {
      options.a2 = lora->columns_of(h, next);
      options.b2 = lora->parts[next].b.t();
      bias = lora->parts[next].bias;
      scale = lora->parts[next].scale;
      ++next;
    }
    at::Tensor own = y.narrow(1, first, rows);
    const at::Tensor w = weight.narrow(0, first, rows);
    if (x8 && takes_float8(rows, w.size(1))) {
      float8_product(own, x8->get(), to_float8(w, Float8Role::kValue, *float8), Float8Sums::kFast,
                     options.add);
      if (options.a2.defined()) gemm(own, options.a2, options.b2, {.add = own});
    } else {
      gemm(own, x, w.t(), options);
    }
    if (bias.defined()) own.add_(bias, scale);
    first += rows;
  }
}

// dx = sum of dy_p W_p, rounded once a part.
void float8_input_gradient(at::Tensor dx, const at::Tensor& dy, const at::Tensor& weight,
                           const Projection& p, Float8Scaling scaling) {
  int64_t first = 0;
  for (const int64_t rows : p.rows) {
    const at::Tensor part = dy.narrow(1, first, rows), w = weight.narrow(0, first, rows);
    const at::Tensor add = first > 0 ? dx : at::Tensor();
    if (takes_float8(rows, w.size(1))) {
      float8_product(dx, to_float8(part, Float8Role::kGradient, scaling),
                     to_float8(w.t(), Float8Role::kValue, scaling), Float8Sums::kPrecise, add);
    } else {
      gemm(dx, part, w, {.add = add});
    }
    first += rows;
  }
}

// The gradient of each weight += dy_p^T x.
void add_weight_gradients(const Projection& p, const at::Tensor& dy, const at::Tensor& x,
                          std::optional<Float8Scaling> float8) {
  std::optional<SharedFloat8> x8;
  if (float8) x8.emplace(x.t(), *float8);
  int64_t first = 0;
  for (const at::Tensor& weight : p.weights) {
    const int64_t rows = weight.size(0);
    const at::Tensor part = dy.narrow(1, first, rows);
    first += rows;
    if (!weight.requires_grad()) continue;
    const at::Tensor gradient = float32_gradient(weight);
    if (x8 && takes_float8(rows, weight.size(1))) {
      float8_product(gradient, to_float8(part.t(), Float8Role::kGradient, *float8), x8->get(),
                     Float8Sums::kPrecise, gradient);
    } else {
      gemm(gradient, part.t(), x, {.accumulate = true});
    }
  }
}

struct Linear : torch::autograd::Function<Linear> {
  // `parameters` only tie the node to the leaves, so that their hooks run after it; the state holds
  // them by name.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList parameters,
                            const std::optional<at::Tensor>& residual,
                            const c10::intrusive_ptr<LinearState>& state) {
    const Projection& p = state->projection;
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = first_row(p.rows, p.rows.size());
    at::Tensor y = at::empty(shape, x.options());
    const at::Tensor added = residual ? rows_of(*residual) : at::Tensor();
    const bool few = state->decoding;
    const at::Tensor weight = few ? at::Tensor() : whole_weight(p, x.scalar_type());
    TEMPER_CHECK(x.is_contiguous() && (few || x.size(-1) == weight.size(1)),
                 "linear takes a contiguous x of the weight's width");
    at::Tensor h;
    if (const LowRank* lora = few ? nullptr : active(p)) h = low_rank_inner(*lora, rows_of(x));
    if (few) {
      decoding_product(rows_of(y), rows_of(x), added, p);
    } else if (h.defined() || state->float8) {
      product_of_parts(rows_of(y), rows_of(x), weight, added, p, h, state->float8);
    } else {
      gemm(rows_of(y), rows_of(x), weight.t(), {.add = added, .weight = p.weight.defined()});
    }
    if (p.bias.defined()) y.add_(p.bias);
    ctx->saved_data["state"] = c10::IValue::make_capsule(state);
    ctx->saved_data["parameters"] = static_cast<int64_t>(parameters.size());
    ctx->saved_data["residual"] = residual.has_value();
    const bool keeps_x = !state->x_again && (h.defined() || any_requires_grad(p.weights));
    ctx->save_for_backward({keeps_x ? x : at::Tensor(), h});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto state =
        c10::static_intrusive_pointer_cast<LinearState>(ctx->saved_data["state"].toCapsule());
    const Projection& p = state->projection;
    const at::Tensor dy = grads[0].contiguous();
    const at::Tensor dy_rows = rows_of(dy);
    const int64_t parameters = ctx->saved_data["parameters"].toInt();
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& h = saved[1];  // defined: LoRA was active
    const at::Tensor dh =
        h.defined() ? low_rank_inner_gradient(*p.low_rank, p.rows, dy_rows, h) : at::Tensor();
    variable_list result(1 + parameters + 2);  // x, parameters, residual, state
    if (ctx->needs_input_grad(0)) {
      const at::Tensor weight = whole_weight(p, dy.scalar_type());
      std::vector<int64_t> shape = dy.sizes().vec();
      shape.back() = weight.size(1);
      result[0] = at::empty(shape, dy.options());
      const bool drops = dh.defined() && p.low_rank->drops();
      const at::Tensor dx = rows_of(result[0]);
      GemmOptions options;
      if (dh.defined() && !drops) {
        options.a2 = dh;
        options.b2 = p.low_rank->a;
      }
      if (state->float8) {
        float8_input_gradient(dx, dy_rows, weight, p, *state->float8);
        if (options.a2.defined()) gemm(dx, options.a2, options.b2, {.add = dx});
      } else {
        gemm(dx, dy_rows, weight, options);
      }
      if (drops) add_through_dropout(dx, *p.low_rank, dh);
    }
    if (ctx->saved_data["residual"].toBool() && ctx->needs_input_grad(1 + parameters))
      result[1 + parameters] = dy;
    if (dh.defined() || any_requires_grad(p.weights)) {
      const at::Tensor x = rows_of(state->x_again ? state->x_again() : saved[0]);
      if (dh.defined()) add_gradient_of_a(*p.low_rank, x, dh);
      add_weight_gradients(p, dy_rows, x, state->float8);
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

at::Tensor fused_linear(const at::Tensor& x, const Projection& projection,
                        const at::Tensor& residual, std::function<at::Tensor()> x_again) {
  auto state = c10::make_intrusive<LinearState>();
  state->projection = projection;
  state->x_again = std::move(x_again);
  state->decoding = decodes(projection, rows_of(x));
  if (!WithoutFloat8::lives()) state->float8 = projection.float8;
  std::vector<at::Tensor> parameters = projection.weights;
  parameters.insert(parameters.end(), projection.biases.begin(), projection.biases.end());
  if (projection.low_rank) {
    for (const LowRankPart& part : projection.low_rank->parts) {
      parameters.push_back(part.a);
      parameters.push_back(part.b);
      if (part.bias.defined()) parameters.push_back(part.bias);
    }
  }
  return Linear::apply(x, at::TensorList(parameters),
                       residual.defined() ? std::optional(residual) : std::nullopt, state);
}

// One part by itself.
Projection part_of(const Projection& p, size_t index, bool with_bias) {
  const int64_t first = first_row(p.rows, index);
  Projection part;
  part.rows = {p.rows[index]};
  part.float8 = p.float8;
  if (p.weight.defined()) {
    part.weight = p.weight.narrow(0, first, p.rows[index]);
    part.weights = {p.weights[index]};
  } else {
    part.quantized = {p.quantized[index]};
  }
  if (with_bias && p.bias.defined()) {
    part.bias = p.bias.narrow(0, first, p.rows[index]);
    part.biases = {p.biases[index]};
  }
  return part;
}

at::Tensor adapted_part(const at::Tensor& x, const Projection& p, size_t index) {
  if (!p.adapted[index]) return fused_linear(x, part_of(p, index, true), {}, {});
  const Projection part = part_of(p, index, false);
  return p.adapted[index](
      x,
      {.product = [&](const at::Tensor& in) { return fused_linear(in.contiguous(), part, {}, {}); },
       .weight = [&] { return p.part_weight(index, x.scalar_type()); },
       .bias = p.biases.empty() ? at::Tensor() : p.biases[index]});
}

}  // namespace

TrainingProducts::TrainingProducts(bool on) : before_(training_products) {
  training_products = before_ || on;
}
TrainingProducts::~TrainingProducts() { training_products = before_; }

at::Tensor Projection::part_weight(size_t index, at::ScalarType dtype) const {
  return weight.defined() ? weight.narrow(0, first_row(rows, index), rows[index]).to(dtype)
                          : dequantize(quantized[index], dtype);
}

at::Tensor linear(const at::Tensor& x, const Projection& projection, const at::Tensor& residual,
                  std::function<at::Tensor()> x_again) {
  if (projection.adapted.empty()) {
    return fused_linear(x, projection, residual, std::move(x_again));
  }
  std::vector<at::Tensor> parts;
  const at::Tensor rows = rows_of(x);
  for (size_t i = 0; i < projection.rows.size(); ++i) {
    parts.push_back(adapted_part(rows, projection, i));
  }
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = first_row(projection.rows, projection.rows.size());
  const at::Tensor y = (parts.size() == 1 ? parts.front() : at::cat(parts, 1)).view(shape);
  return residual.defined() ? y + residual : y;
}

}  // namespace temper::trainer
