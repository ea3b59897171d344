#include "trainer/ops/linear.h"

#include <algorithm>
#include <numeric>

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

const LowRank* active(const Projection& p) {
  return p.low_rank && p.low_rank->context->enabled ? p.low_rank.get() : nullptr;
}

int64_t first_row(const Projection& p, size_t part) {
  return std::accumulate(p.rows.begin(), p.rows.begin() + static_cast<std::ptrdiff_t>(part),
                         int64_t{0});
}

// All parts of a quantised weight, for one product; it lives no longer than that.
at::Tensor whole_weight(const Projection& p, at::ScalarType dtype) {
  if (p.weight.defined()) return p.weight;
  if (p.quantized.size() == 1) return dequantize(p.quantized.front(), dtype);
  at::Tensor whole = at::empty({first_row(p, p.rows.size()), p.quantized.front().columns}, dtype);
  for (size_t i = 0; i < p.quantized.size(); ++i) {
    dequantize_rows(p.quantized[i], 0, p.rows[i], whole.narrow(0, first_row(p, i), p.rows[i]));
  }
  return whole;
}

// ---- LoRA
// ----------------------------------------------------------------------------------------

// Columns of h (rows of the stacked A) that belong to a part.
struct Ranks {
  int64_t first;
  int64_t count;
};

std::vector<Ranks> ranks_of(const LowRank& lora) {
  std::vector<Ranks> ranks;
  int64_t first = 0;
  for (const LowRankPart& part : lora.parts) {
    ranks.push_back({first, part.a.size(0)});
    first += part.a.size(0);
  }
  return ranks;
}

// h_p = scale_p x A_p^T, side by side [M, sum of ranks]. With dropout every part has a mask of its
// own.
at::Tensor low_rank_inner(const LowRank& lora, const at::Tensor& x) {
  at::Tensor h = at::empty({x.size(0), lora.a.size(0)}, x.options());
  if (!lora.drops()) gemm(h, x, lora.a.t());
  const std::vector<Ranks> ranks = ranks_of(lora);
  for (size_t i = 0; i < lora.parts.size(); ++i) {
    const LowRankPart& part = lora.parts[i];
    at::Tensor own = h.narrow(1, ranks[i].first, ranks[i].count);
    if (lora.drops()) {
      gemm(own, masked(x, lora.dropout, dropout_seed(part.module, *lora.context)), part.a.t());
    }
    if (part.scale != 1) own.mul_(part.scale);
  }
  return h;
}

// y_p = x W_p^T (+ residual) + h_p B_p^T, rounded once.
void adapted_product(at::Tensor y, const at::Tensor& x, const at::Tensor& weight,
                     const at::Tensor& residual, const Projection& p, const at::Tensor& h) {
  const LowRank& lora = *p.low_rank;
  const std::vector<Ranks> ranks = ranks_of(lora);
  size_t next = 0;
  int64_t first = 0;
  for (size_t part = 0; part < p.rows.size(); ++part) {
    const int64_t rows = p.rows[part];
    GemmOptions options;
    if (residual.defined()) options.add = residual.narrow(1, first, rows);
    at::Tensor bias;
    double scale = 1;
    if (next < lora.parts.size() && lora.parts[next].part == part) {
      options.a2 = h.narrow(1, ranks[next].first, ranks[next].count);
      options.b2 = lora.parts[next].b.t();
      bias = lora.parts[next].bias;
      scale = lora.parts[next].scale;
      ++next;
    }
    at::Tensor own = y.narrow(1, first, rows);
    gemm(own, x, weight.narrow(0, first, rows).t(), options);
    if (bias.defined()) own.add_(bias, scale);
    first += rows;
  }
}

// dh_p = scale_p dy_p B_p, and the gradient of B.
at::Tensor low_rank_inner_gradient(const Projection& p, const at::Tensor& dy, const at::Tensor& h) {
  const LowRank& lora = *p.low_rank;
  at::Tensor dh = at::empty({dy.size(0), lora.a.size(0)}, dy.options());
  const std::vector<Ranks> ranks = ranks_of(lora);
  for (size_t i = 0; i < lora.parts.size(); ++i) {
    const LowRankPart& part = lora.parts[i];
    const at::Tensor own_dy = dy.narrow(1, first_row(p, part.part), p.rows[part.part]);
    at::Tensor own = dh.narrow(1, ranks[i].first, ranks[i].count);
    gemm(own, own_dy, part.b);
    if (part.scale != 1) own.mul_(part.scale);
    if (part.b.requires_grad()) {
      gemm(float32_gradient(part.b), own_dy.t(), h.narrow(1, ranks[i].first, ranks[i].count),
           {.accumulate = true});
    }
    if (part.bias.defined() && part.bias.requires_grad()) {
      const at::Tensor sums = at::zeros({own_dy.size(1)}, at::kFloat);
      add_column_sums(own_dy, sums);
      float32_gradient(part.bias).add_(sums, part.scale);
    }
  }
  return dh;
}

// dA_p += dh_p^T x, computed as x^T dh, whose many rows the threads can share.
void add_gradient_of_a(const LowRank& lora, const at::Tensor& x, const at::Tensor& dh) {
  const std::vector<Ranks> ranks = ranks_of(lora);
  at::Tensor all;
  if (!lora.drops()) {
    all = at::empty({x.size(1), lora.a.size(0)}, at::kFloat);
    gemm(all, x.t(), dh);
  }
  for (size_t i = 0; i < lora.parts.size(); ++i) {
    const LowRankPart& part = lora.parts[i];
    if (!part.a.requires_grad()) continue;
    at::Tensor own;
    if (lora.drops()) {
      own = at::empty({x.size(1), ranks[i].count}, at::kFloat);
      gemm(own, masked(x, lora.dropout, dropout_seed(part.module, *lora.context)).t(),
           dh.narrow(1, ranks[i].first, ranks[i].count));
    } else {
      own = all.narrow(1, ranks[i].first, ranks[i].count);
    }
    float32_gradient(part.a).add_(own.t());
  }
}

// What dropout lets through of dh_p A_p, added to dx.
void add_through_dropout(at::Tensor dx, const LowRank& lora, const at::Tensor& dh) {
  const std::vector<Ranks> ranks = ranks_of(lora);
  at::Tensor back = at::empty_like(dx);
  for (size_t i = 0; i < lora.parts.size(); ++i) {
    gemm(back, dh.narrow(1, ranks[i].first, ranks[i].count), lora.parts[i].a);
    dx.add_(masked(back, lora.dropout, dropout_seed(lora.parts[i].module, *lora.context)));
  }
}

// ---- the node
// ------------------------------------------------------------------------------------

struct Linear : torch::autograd::Function<Linear> {
  // `parameters` only tie the node to the leaves, so that their hooks run after it; the state holds
  // them by name.
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, at::TensorList parameters,
                            const std::optional<at::Tensor>& residual,
                            const c10::intrusive_ptr<LinearState>& state) {
    const Projection& p = state->projection;
    const at::Tensor weight = whole_weight(p, x.scalar_type());
    TEMPER_CHECK(x.is_contiguous() && x.size(-1) == weight.size(1),
                 "linear takes a contiguous x of the weight's width");
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = weight.size(0);
    at::Tensor y = at::empty(shape, x.options());
    const at::Tensor added = residual ? rows_of(*residual) : at::Tensor();
    at::Tensor h;
    if (const LowRank* lora = active(p)) {
      h = low_rank_inner(*lora, rows_of(x));
      adapted_product(rows_of(y), rows_of(x), weight, added, p, h);
    } else {
      gemm(rows_of(y), rows_of(x), weight.t(), {.add = added});
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
    const at::Tensor dh = h.defined() ? low_rank_inner_gradient(p, dy_rows, h) : at::Tensor();
    variable_list result(1 + parameters + 2);  // x, parameters, residual, state
    if (ctx->needs_input_grad(0)) {
      const at::Tensor weight = whole_weight(p, dy.scalar_type());
      std::vector<int64_t> shape = dy.sizes().vec();
      shape.back() = weight.size(1);
      result[0] = at::empty(shape, dy.options());
      const bool drops = dh.defined() && p.low_rank->drops();
      GemmOptions options;
      if (dh.defined() && !drops) {
        options.a2 = dh;
        options.b2 = p.low_rank->a;
      }
      gemm(rows_of(result[0]), dy_rows, weight, options);
      if (drops) add_through_dropout(rows_of(result[0]), *p.low_rank, dh);
    }
    if (ctx->saved_data["residual"].toBool() && ctx->needs_input_grad(1 + parameters))
      result[1 + parameters] = dy;
    if (dh.defined() || any_requires_grad(p.weights)) {
      const at::Tensor x = rows_of(state->x_again ? state->x_again() : saved[0]);
      if (dh.defined()) add_gradient_of_a(*p.low_rank, x, dh);
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

at::Tensor fused_linear(const at::Tensor& x, const Projection& projection,
                        const at::Tensor& residual, std::function<at::Tensor()> x_again) {
  auto state = c10::make_intrusive<LinearState>();
  state->projection = projection;
  state->x_again = std::move(x_again);
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
  const int64_t first = first_row(p, index);
  Projection part;
  part.rows = {p.rows[index]};
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

at::Tensor Projection::part_weight(size_t index, at::ScalarType dtype) const {
  return weight.defined() ? weight.narrow(0, first_row(*this, index), rows[index]).to(dtype)
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
  shape.back() = first_row(projection, projection.rows.size());
  const at::Tensor y = (parts.size() == 1 ? parts.front() : at::cat(parts, 1)).view(shape);
  return residual.defined() ? y + residual : y;
}

}  // namespace temper::trainer
