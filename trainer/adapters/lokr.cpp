#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "trainer/adapters/methods.h"
#include "trainer/adapters/parts.h"
#include "trainer/adapters/targets.h"
#include "trainer/ops/device.h"

namespace temper::trainer {
namespace {

// The sides (m, n), m n = size, of the two Kronecker factors: m = factor where that divides; else
// m <= n as near to each other as m <= factor lets them be (factor -1: no bound).
std::pair<int64_t, int64_t> factor_sides(int64_t size, int64_t factor) {
  if (factor > 0 && size % factor == 0) return {factor, size / factor};
  const int64_t bound = factor == -1 ? size : factor;
  int64_t best = 1;
  for (int64_t m = 1; m <= bound && m * m <= size; ++m)
    if (size % m == 0) best = m;
  return {best, size / best};
}

enum class Start { kZeroFirst, kRandom, kZeroSecond };

Start start_of(const recipes::BoolOrWord& init) {
  if (std::holds_alternative<std::string>(init)) return Start::kZeroSecond;  // "lycoris"
  return std::get<bool>(init) ? Start::kZeroFirst : Start::kRandom;
}

// A factor of the Kronecker product: whole, or a product of rank R.
struct Factor {
  Parameter whole;  // undefined when there are a and b
  Parameter a, b;
  std::string suffix;

  at::Tensor value() const {
    return whole.value.defined() ? whole.value : at::mm(a.value, b.value);
  }
  at::Tensor master() const {
    return whole.master.defined() ? whole.master : at::mm(a.master, b.master);
  }
};

Factor add_factor(AdapterTensors& tensors, const LinearSite& site, const std::string& suffix,
                  int64_t rows, int64_t columns, int64_t rank, bool low_rank) {
  Factor factor;
  factor.suffix = suffix;
  if (low_rank) {
    factor.a = tensors.add(site, suffix + "_a", {rows, rank});
    factor.b = tensors.add(site, suffix + "_b", {rank, columns});
  } else {
    factor.whole = tensors.add(site, suffix, {rows, columns});
  }
  return factor;
}

class LoKr final : public LinearAdapter {
 public:
  LoKr(const recipes::Peft& peft, const LinearSite& site, AdapterTensors& tensors)
      : module_(site.module),
        rank_dropout_(peft.rank_dropout.value()),
        module_dropout_(peft.module_dropout.value()),
        rank_dropout_scale_(peft.rank_dropout_scale.value()),
        start_(start_of(peft.init_weights.value())) {
    const int64_t rank = pattern_value(peft.rank_pattern, site.module, peft.r.value());
    scaling_ =
        static_cast<double>(pattern_value(peft.alpha_pattern, site.module, peft.alpha.value())) /
        static_cast<double>(rank);
    const int64_t factor = peft.decompose_factor.value();
    const auto [in1, in2] = factor_sides(site.in_features, factor);
    const auto [out1, out2] = factor_sides(site.out_features, factor);
    first_ = add_factor(tensors, site, "lokr_w1", out1, in1, rank,
                        peft.decompose_both.value() && 2 * rank < std::max(out1, in1));
    second_ = add_factor(tensors, site, "lokr_w2", out2, in2, rank, 2 * rank < std::max(out2, in2));
  }

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override {
    const at::Tensor y = base_output(base, x);
    if (!context.enabled || sits_out(context, module_, module_dropout_)) return y;
    at::Tensor delta_y = product(x);
    if (context.training && rank_dropout_ > 0) {
      const at::Tensor mask = kept(context, delta_y.size(1)).to(x.scalar_type());
      delta_y = at::mul(delta_y, sent_to(x.device(), mask));
    }
    return at::add(y, delta_y, scaling_);
  }

  at::Tensor initialize(const BaseWeight&, uint64_t seed) override {
    initialize_factor(first_, start_ == Start::kZeroFirst, first_.a, seed);
    initialize_factor(second_, start_ == Start::kZeroSecond, second_.b, seed);
    return {};
  }

  void merge(at::Tensor& weight, at::Tensor&, at::ScalarType) const override {
    const at::NoGradGuard no_grad;
    weight.add_(at::kron(first_.master(), second_.master().contiguous()), scaling_);
  }

 private:
  // x kron(W1, W2)^T without the Kronecker product: with a row of x as a matrix X [in1, in2] it is
  // W1 X W2^T [out1, out2]. Both as one product over all rows, so that a gradient is one, too.
  at::Tensor product(const at::Tensor& x) const {
    const at::Tensor w1 = first_.value(), w2 = second_.value();
    const int64_t rows = x.size(0);
    const at::Tensor inner = at::matmul(x.reshape({rows * w1.size(1), w2.size(1)}), w2.t())
                                 .view({rows, w1.size(1), w2.size(0)});
    return at::matmul(inner.transpose(1, 2).reshape({rows * w2.size(0), w1.size(1)}), w1.t())
        .view({rows, w2.size(0), w1.size(0)})
        .transpose(1, 2)
        .reshape({rows, w1.size(0) * w2.size(0)});
  }

  // [N]: 0 with probability rank_dropout; with rank_dropout_scale so that the mean is 1 (all 0 when
  // none is left).
  at::Tensor kept(const AdapterContext& context, int64_t features) const {
    const at::Tensor drawn =
        at::rand({features}, choices(context, module_, "rank_dropout"), at::kFloat);
    const at::Tensor kept = at::gt(drawn, rank_dropout_).to(at::kFloat);
    return rank_dropout_scale_ ? at::div(kept, at::mean(kept).clamp_min(1e-12)) : kept;
  }

  static void initialize_factor(const Factor& factor, bool zero, const Parameter& zero_part,
                                uint64_t seed) {
    if (factor.whole.master.defined()) {
      if (zero)
        fill_master(factor.whole, 0);
      else
        draw_kaiming(factor.whole, seed, factor.suffix);
      return;
    }
    draw_kaiming(factor.a, seed, factor.suffix + "_a");
    draw_kaiming(factor.b, seed, factor.suffix + "_b");
    if (zero) fill_master(zero_part, 0);
  }

  std::string module_;
  double scaling_ = 0;
  double rank_dropout_, module_dropout_;
  bool rank_dropout_scale_;
  Start start_;
  Factor first_, second_;
};

}  // namespace

std::unique_ptr<LinearAdapter> build_lokr(const recipes::Peft& peft, const LinearSite& site,
                                          AdapterTensors& tensors) {
  return std::make_unique<LoKr>(peft, site, tensors);
}

}  // namespace temper::trainer
