#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "trainer/adapters/methods.h"
#include "trainer/adapters/parts.h"
#include "trainer/ops/scale_features.h"

namespace temper::trainer {
namespace {

constexpr const char* kA = "base_model.vera_A";
constexpr const char* kB = "base_model.vera_B";

// Kaiming-uniform with PEFT's gain of sqrt(2), by hand since torch.nn.init takes no generator
// there.
at::Tensor drawn_projection(int64_t rows, int64_t columns, at::Generator generator) {
  const double bound = std::sqrt(3.0) * (std::sqrt(2.0) / std::sqrt(static_cast<double>(columns)));
  return at::empty({rows, columns}, at::kFloat).uniform_(-bound, bound, std::move(generator));
}

// A frozen tensor of no size yet; unsaved, it is not among the parameters.
Parameter& projection(const char* key, bool save, AdapterTensors& tensors) {
  auto& shared = tensors.shared();
  const auto found = shared.find(key);
  if (found != shared.end()) return found->second;
  Parameter& parameter = shared[key];
  if (save) {
    parameter = tensors.add(key, tensors.empty({0, 0}), /*trainable=*/false);
  } else {
    parameter.name = key;
    parameter.value = tensors.empty({0, 0});
    parameter.master = parameter.value.scalar_type() == at::kFloat
                           ? parameter.value
                           : tensors.empty({0, 0}, Precision::kFloat32);
  }
  return parameter;
}

// In place: every layer and the list of parameters hold the same tensor.
void redraw(Parameter& parameter, const at::Tensor& drawn) {
  for (at::Tensor tensor : {parameter.master, parameter.value})
    tensor.resize_(drawn.sizes()).copy_(drawn);
}

class Vera final : public LinearAdapter {
 public:
  Vera(const recipes::Peft& peft, const LinearSite& site, AdapterTensors& tensors)
      : module_(site.module),
        dropout_(peft.vera_dropout.value()),
        d_initial_(peft.d_initial.value()),
        start_(std::get<bool>(peft.init_weights.value())) {
    const int64_t rank = peft.r.value();
    b_ = tensors.add(site, "vera_lambda_b", {site.out_features}, Precision::kFloat32);
    d_ = tensors.add(site, "vera_lambda_d", {rank}, Precision::kFloat32);
    Parameter& a = projection(kA, peft.save_projection.value(), tensors);
    Parameter& b = projection(kB, peft.save_projection.value(), tensors);
    const int64_t columns = a.value.size(1), rows = b.value.size(0);
    if (site.in_features > columns || site.out_features > rows) {
      // One generator for both, A first: B's numbers depend on A's size.
      at::Generator generator =
          at::detail::createCPUGenerator(static_cast<uint64_t>(peft.projection_prng_key.value()));
      redraw(a, drawn_projection(rank, std::max(columns, site.in_features), generator));
      redraw(b, drawn_projection(std::max(rows, site.out_features), rank, generator));
    }
    shared_a_ = a;
    shared_b_ = b;
  }

  at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                     const AdapterContext& context) const override {
    const at::Tensor y = base_output(base, x);
    if (!context.enabled) return y;
    const at::Tensor a = shared_a_.value.narrow(1, 0, x.size(1));
    const at::Tensor b = shared_b_.value.narrow(0, 0, y.size(1));
    const at::Tensor dropped = adapter_dropout(x, dropout_, module_, context);
    const at::Tensor inner = scale_features(at::matmul(dropped, a.t()), d_.value);
    return at::add(y, scale_features(at::matmul(inner, b.t()), b_.value));
  }

  at::Tensor initialize(const BaseWeight&, uint64_t seed) override {
    if (start_) {
      fill_master(b_, 0);
      fill_master(d_, d_initial_);
    } else {
      fill_master(b_, 1);
      draw_normal(d_, 0, 1, seed, "vera_lambda_d");
    }
    return {};
  }

  void merge(at::Tensor& weight, at::Tensor&, at::ScalarType) const override {
    const at::NoGradGuard no_grad;
    const at::Tensor a = shared_a_.master.narrow(1, 0, weight.size(1));
    const at::Tensor b = shared_b_.master.narrow(0, 0, weight.size(0));
    weight.add_(at::mm(at::mul(b_.master.unsqueeze(1), b), at::mul(d_.master.unsqueeze(1), a)));
  }

 private:
  std::string module_;
  double dropout_;
  double d_initial_;
  bool start_;
  Parameter b_, d_;
  Parameter shared_a_, shared_b_;
};

}  // namespace

std::unique_ptr<LinearAdapter> build_vera(const recipes::Peft& peft, const LinearSite& site,
                                          AdapterTensors& tensors) {
  return std::make_unique<Vera>(peft, site, tensors);
}

}  // namespace temper::trainer
