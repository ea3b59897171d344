#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "trainer/adapters/methods.h"
#include "trainer/adapters/parts.h"
#include "trainer/adapters/targets.h"
#include "trainer/ops/scale_features.h"

namespace temper::trainer {
namespace {

class Ia3 final : public LinearAdapter {
 public:
  Ia3(const recipes::Peft& peft, const LinearSite& site, AdapterTensors& tensors)
      : feedforward_(is_feedforward(peft, site.module)),
        ones_(peft.init_ia3_weights.value()),
        scale_(feedforward_
                   ? tensors.add(site, "ia3_l", {1, site.in_features}, Precision::kFloat32)
                   : tensors.add(site, "ia3_l", {site.out_features, 1}, Precision::kFloat32)) {}

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override {
    if (!context.enabled) return base_output(base, x);
    if (feedforward_) return base_output(base, scale_features(x, scale_.value));
    return scale_features(base_output(base, x), scale_.value);
  }

  at::Tensor initialize(const BaseWeight&, uint64_t seed) override {
    if (ones_)
      fill_master(scale_, 1);
    else
      draw_normal(scale_, 0, 1, seed, "ia3_l");
    return {};
  }

  void merge(at::Tensor& weight, at::Tensor& bias, at::ScalarType) const override {
    const at::NoGradGuard no_grad;
    weight.mul_(scale_.master);
    if (!feedforward_ && bias.defined()) bias.mul_(scale_.master.view(-1));
  }

 private:
  bool feedforward_;
  bool ones_;
  Parameter scale_;
};

}  // namespace

std::unique_ptr<LinearAdapter> build_ia3(const recipes::Peft& peft, const LinearSite& site,
                                         AdapterTensors& tensors) {
  return std::make_unique<Ia3>(peft, site, tensors);
}

}  // namespace temper::trainer
