#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "trainer/adapters/methods.h"
#include "trainer/adapters/parts.h"
#include "trainer/adapters/targets.h"
#include "trainer/ops/device.h"

namespace temper::trainer {
namespace {

class LoHa final : public LinearAdapter {
 public:
  LoHa(const recipes::Peft& peft, const LinearSite& site, AdapterTensors& tensors)
      : module_(site.module),
        rank_(pattern_value(peft.rank_pattern, site.module, peft.r.value())),
        scaling_(static_cast<double>(
                     pattern_value(peft.alpha_pattern, site.module, peft.alpha.value())) /
                 static_cast<double>(rank_)),
        rank_dropout_(peft.rank_dropout.value()),
        module_dropout_(peft.module_dropout.value()),
        zero_(std::get<bool>(peft.init_weights.value())) {
    check_rank(site, "r", rank_);
    a1_ = tensors.add(site, "hada_w1_a", {site.out_features, rank_});
    b1_ = tensors.add(site, "hada_w1_b", {rank_, site.in_features});
    a2_ = tensors.add(site, "hada_w2_a", {site.out_features, rank_});
    b2_ = tensors.add(site, "hada_w2_b", {rank_, site.in_features});
  }

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override {
    const at::Tensor y = base_output(base, x);
    if (!context.enabled || sits_out(context, module_, module_dropout_)) return y;
    at::Tensor delta_y = product(x);
    // A row of delta W is a feature of its output.
    if (context.training && rank_dropout_ > 0) delta_y = at::mul(delta_y, kept(context, x));
    return at::add(y, delta_y, scaling_);
  }

  at::Tensor initialize(const BaseWeight&, uint64_t seed) override {
    draw_kaiming(a1_, seed, "hada_w1_a");
    draw_kaiming(b1_, seed, "hada_w1_b");
    draw_kaiming(a2_, seed, "hada_w2_a");
    if (zero_)
      fill_master(b2_, 0);
    else
      draw_kaiming(b2_, seed, "hada_w2_b");
    return {};
  }

  void merge(at::Tensor& weight, at::Tensor&, at::ScalarType) const override {
    const at::NoGradGuard no_grad;
    weight.add_(at::mul(at::mm(a1_.master, b1_.master), at::mm(a2_.master, b2_.master)), scaling_);
  }

 private:
  // x delta W^T. The elementwise product of two matrices of rank R has rank R^2 and known factors
  // (rows times rows, columns times columns), which is less work than delta W itself while R is
  // small.
  at::Tensor product(const at::Tensor& x) const {
    const at::Tensor &a1 = a1_.value, &b1 = b1_.value, &a2 = a2_.value, &b2 = b2_.value;
    const int64_t n = a1.size(0), d = b1.size(1), rank = rank_ * rank_;
    if (rank * (n + d) > n * d)
      return at::matmul(x, at::mul(at::matmul(a1, b1), at::matmul(a2, b2)).t());
    const at::Tensor columns = at::mul(b1.unsqueeze(1), b2.unsqueeze(0)).reshape({rank, d});
    const at::Tensor rows = at::mul(a1.unsqueeze(2), a2.unsqueeze(1)).reshape({n, rank});
    return at::matmul(at::matmul(x, columns.t()), rows.t());
  }

  // [N]: 0 with probability rank_dropout, the others so that the mean is 1; all 0 when none is
  // left.
  at::Tensor kept(const AdapterContext& context, const at::Tensor& x) const {
    const at::Tensor drawn =
        at::rand({a1_.value.size(0)}, choices(context, module_, "rank_dropout"), at::kFloat);
    const at::Tensor kept = at::gt(drawn, rank_dropout_).to(at::kFloat);
    return sent_to(x.device(),
                   at::div(kept, at::mean(kept).clamp_min(1e-12)).to(x.scalar_type()));
  }

  std::string module_;
  int64_t rank_;
  double scaling_;
  double rank_dropout_, module_dropout_;
  bool zero_;
  Parameter a1_, b1_, a2_, b2_;
};

}  // namespace

std::unique_ptr<LinearAdapter> build_loha(const recipes::Peft& peft, const LinearSite& site,
                                          AdapterTensors& tensors) {
  return std::make_unique<LoHa>(peft, site, tensors);
}

}  // namespace temper::trainer
