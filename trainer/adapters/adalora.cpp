#include "trainer/adapters/adalora.h"

#include <algorithm>
#include <cmath>
#include <map>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"
#include "trainer/adapters/methods.h"
#include "trainer/adapters/parts.h"
#include "trainer/adapters/targets.h"
#include "trainer/ops/gradient.h"
#include "trainer/ops/scale_features.h"

namespace temper::trainer {
namespace {

class AdaLora final : public LinearAdapter {
 public:
  AdaLora(const recipes::Peft& peft, const LinearSite& site, AdapterTensors& tensors)
      : module_(site.module),
        dropout_(peft.lora_dropout.value()),
        zero_(std::get<bool>(peft.init_lora_weights.value())) {
    const int64_t initial = peft.init_r.value(), alpha = peft.lora_alpha.value();
    check_rank(site, "init_r", initial);
    // By the first rank, also where ranks have been cut off since.
    scaling_ =
        static_cast<double>(alpha > 0 ? alpha : initial) / (static_cast<double>(initial) + 1e-5);
    const int64_t rank = pattern_value(peft.rank_pattern, site.module, initial);
    a_ = tensors.add(site, "lora_A", {rank, site.in_features});
    b_ = tensors.add(site, "lora_B", {site.out_features, rank});
    e_ = tensors.add(site, "lora_E", {rank, 1}, Precision::kFloat32);
  }

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override {
    const at::Tensor y = base_output(base, x);
    if (!context.enabled) return y;
    const at::Tensor dropped = adapter_dropout(x, dropout_, module_, context);
    const at::Tensor inner = scale_features(at::matmul(dropped, a_.value.t()), e_.value);
    return at::add(y, at::matmul(inner, b_.value.t()), scaling_);
  }

  at::Tensor initialize(const BaseWeight&, uint64_t seed) override {
    const double std = zero_ ? 0.02 : 1;
    draw_normal(a_, 0, std, seed, "lora_A");
    draw_normal(b_, 0, std, seed, "lora_B");
    if (zero_)
      fill_master(e_, 0);
    else
      draw_normal(e_, 0, 1, seed, "lora_E");
    return {};
  }

  void merge(at::Tensor& weight, at::Tensor&, at::ScalarType) const override {
    const at::NoGradGuard no_grad;
    weight.add_(at::mm(b_.master, at::mul(a_.master, e_.master)), scaling_);
  }

 private:
  std::string module_;
  double dropout_;
  bool zero_;
  double scaling_ = 0;
  Parameter a_, b_, e_;
};

// A product of elements averaged over the rows (or columns) of each rank, in double and in order.
std::vector<double> mean_scores(const at::Tensor& importance, const at::Tensor& uncertainty,
                                bool ranks_are_rows) {
  const at::Tensor score = at::mul(importance, uncertainty).cpu().contiguous();
  const int64_t rows = score.size(0), columns = score.size(1);
  std::vector<double> means(ranks_are_rows ? rows : columns);
  const float* value = score.const_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < columns; ++column)
      means[ranks_are_rows ? row : column] += *value++;
  for (double& mean : means) mean /= static_cast<double>(ranks_are_rows ? columns : rows);
  return means;
}

// ||W W^T - I||_F of W [R, *], [] float64; adds `scale` times its gradient to `gradient`. Does not
// wait for a device.
at::Tensor add_orthogonality(const at::Tensor& w, double scale, at::Tensor gradient) {
  const at::Tensor gram = at::sub(at::mm(w, w.t()), at::eye(w.size(0), w.options()));
  const at::Tensor norm = at::linalg_vector_norm(gram.to(at::kDouble));
  if (!w.is_cpu()) {
    gradient.add_(at::mul(at::mm(gram, w), norm.clamp_min(1e-12).reciprocal().mul_(2 * scale)));
  } else if (const double value = norm.item<double>(); value > 0) {
    gradient.add_(at::mm(gram, w), 2 * scale / value);
  }
  return norm;
}

}  // namespace

std::unique_ptr<LinearAdapter> build_adalora(const recipes::Peft& peft, const LinearSite& site,
                                             AdapterTensors& tensors) {
  return std::make_unique<AdaLora>(peft, site, tensors);
}

RankAllocator::RankAllocator(const recipes::Peft& peft, const std::vector<Parameter>& parameters)
    : beta1_(peft.beta1.value()),
      beta2_(peft.beta2.value()),
      orthogonality_(peft.orth_reg_weight.value()),
      first_(peft.tinit.value()),
      last_(peft.total_step.value() - peft.tfinal.value()),
      every_(peft.deltaT.value()) {
  if (first_ >= last_) {
    throw UserError("peft.tinit = " + std::to_string(first_) +
                    ": must be below total_step - tfinal = " + std::to_string(last_) +
                    ", or the budget has no step to fall in");
  }
  if (peft.target_r.value() > peft.init_r.value()) {
    throw UserError("peft.target_r = " + std::to_string(*peft.target_r) +
                    ": must be at most init_r = " + std::to_string(*peft.init_r));
  }
  std::map<std::string, size_t> places;
  for (const Parameter& parameter : parameters) {
    const size_t dot = parameter.name.rfind('.');
    if (dot == std::string::npos) continue;
    const std::string suffix = parameter.name.substr(dot + 1);
    if (suffix != "lora_A" && suffix != "lora_B" && suffix != "lora_E") continue;
    const std::string name = parameter.name.substr(0, dot);
    const auto [place, is_new] = places.try_emplace(name, layers_.size());
    if (is_new) layers_.emplace_back().name = name;
    Layer& layer = layers_[place->second];
    Smoothed& smoothed = suffix == "lora_A" ? layer.a : suffix == "lora_B" ? layer.b : layer.e;
    const auto options = parameter.master.options().dtype(at::kFloat).requires_grad(false);
    smoothed = {parameter, at::zeros(parameter.master.sizes(), options),
                at::zeros(parameter.master.sizes(), options)};
  }
  for (Layer& layer : layers_) {
    TEMPER_CHECK(layer.a.importance.defined() && layer.b.importance.defined() &&
                     layer.e.importance.defined(),
                 "an AdaLoRA layer has A, B and E");
    layer.kept = at::ones_like(layer.e.importance);
    initial_ += layer.kept.size(0);
    target_ += *peft.target_r;
  }
}

double RankAllocator::regularize(double scale) {
  const at::NoGradGuard no_grad;
  const double each = scale * orthogonality_ / static_cast<double>(2 * layers_.size());
  std::vector<at::Tensor> norms;
  for (Layer& layer : layers_) {
    const Parameter &a = layer.a.parameter, &b = layer.b.parameter;
    norms.push_back(add_orthogonality(a.master, each, float32_gradient(a.value)));
    norms.push_back(add_orthogonality(b.master.t(), each, float32_gradient(b.value).t()));
  }
  const at::Tensor all = at::stack(norms).cpu();
  double sum = 0;
  for (int64_t i = 0; i < all.numel(); ++i) sum += all.const_data_ptr<double>()[i];
  return each * sum;
}

int64_t RankAllocator::budget(int64_t step) const {
  if (step <= first_) return initial_;
  if (step >= last_) return target_;
  const double left = 1 - static_cast<double>(step - first_) / static_cast<double>(last_ - first_);
  return static_cast<int64_t>(static_cast<double>(initial_ - target_) * std::pow(left, 3) +
                              static_cast<double>(target_));
}

void RankAllocator::step(int64_t step, double gradient_scale) {
  const at::NoGradGuard no_grad;
  if (step < last_) {
    for (Layer& layer : layers_)
      for (Smoothed* smoothed : {&layer.a, &layer.b, &layer.e}) smooth(*smoothed, gradient_scale);
    if (step > first_ && step % every_ == 0) mask_to_budget(budget(step));
  } else if (step == last_ || alive() > target_) {  // step `last_` itself may have been skipped
    mask_to_budget(target_);
  } else {
    apply_mask();
  }
}

void RankAllocator::smooth(Smoothed& smoothed, double gradient_scale) const {
  const at::Tensor& gradient = smoothed.parameter.value.grad();
  TEMPER_CHECK(gradient.defined(), "AdaLoRA weighs ranks by gradients of this step");
  const at::Tensor now =
      at::abs(at::mul(smoothed.parameter.master, at::mul(gradient, gradient_scale)));
  smoothed.importance.mul_(beta1_).add_(at::mul(now, 1 - beta1_));
  smoothed.uncertainty.mul_(beta2_).add_(
      at::mul(at::abs(at::sub(now, smoothed.importance)), 1 - beta2_));
}

void RankAllocator::mask_to_budget(int64_t budget) {
  std::vector<std::vector<float>> scores;
  std::vector<float> all;
  for (const Layer& layer : layers_) {
    const std::vector<double> a = mean_scores(layer.a.importance, layer.a.uncertainty, true);
    const std::vector<double> b = mean_scores(layer.b.importance, layer.b.uncertainty, false);
    const std::vector<double> e = mean_scores(layer.e.importance, layer.e.uncertainty, true);
    std::vector<float>& score = scores.emplace_back();
    for (size_t i = 0; i < e.size(); ++i) score.push_back(static_cast<float>(e[i] + (a[i] + b[i])));
    all.insert(all.end(), score.begin(), score.end());
  }
  const int64_t cut = initial_ - budget;
  if (cut > 0) std::nth_element(all.begin(), all.begin() + cut - 1, all.end());
  for (size_t i = 0; i < layers_.size(); ++i) {
    at::Tensor kept = at::ones({layers_[i].kept.size(0), 1}, at::kFloat);
    for (size_t rank = 0; rank < scores[i].size(); ++rank)
      // Ties with the last one that goes, go: PEFT's rule.
      if (cut > 0 && scores[i][rank] <= all[cut - 1]) kept[rank].zero_();
    layers_[i].kept.copy_(kept);
  }
  apply_mask();
}

int64_t RankAllocator::alive() const {
  int64_t alive = 0;
  for (const Layer& layer : layers_) alive += layer.kept.count_nonzero().item<int64_t>();
  return alive;
}

void RankAllocator::apply_mask() {
  for (Layer& layer : layers_) {
    const at::Tensor cut = at::eq(layer.kept, 0);
    for (at::Tensor e : {layer.e.parameter.master, layer.e.parameter.value}) e.masked_fill_(cut, 0);
  }
}

std::vector<std::pair<std::string, at::Tensor>> RankAllocator::state() {
  std::vector<std::pair<std::string, at::Tensor>> named;
  for (Layer& layer : layers_) {
    for (Smoothed* smoothed : {&layer.a, &layer.b, &layer.e}) {
      named.emplace_back("importance/" + smoothed->parameter.name, smoothed->importance);
      named.emplace_back("uncertainty/" + smoothed->parameter.name, smoothed->uncertainty);
    }
    named.emplace_back("kept/" + layer.name, layer.kept);
  }
  return named;
}

}  // namespace temper::trainer
