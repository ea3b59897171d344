#include "trainer/optimizers/sgd.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "trainer/ops/device.h"
#include "trainer/optimizers/update.h"

namespace temper::trainer {

namespace {

class Sgd : public Optimizer {
 public:
  Sgd(const recipes::Optimizer& options, const std::vector<Parameter>& parameters)
      : options_(options), parameters_(trainable(parameters)) {
    if (options_.momentum == 0) return;
    // torch starts the buffer as a copy of the first gradient: the same as momentum * 0 + g.
    for (const Parameter& parameter : parameters_) buffers_.push_back(zeros_like_master(parameter));
  }

  void step(double lr, double gradient_scale) override {
    ++updates;
    std::vector<SgdStep> steps;
    for (const Parameter& parameter : parameters_) {
      steps.push_back({
          .gradient_scale = static_cast<float>(gradient_scale),
          .lr = static_cast<float>(lr * parameter.lr_scale),
          .momentum = static_cast<float>(options_.momentum),
          .weight_decay = parameter.decay ? static_cast<float>(options_.weight_decay) : 0,
      });
    }
    if (!parameters_.empty() && kernels_for(parameters_.front().master)) {
      for (size_t i = 0; i < parameters_.size(); ++i) device_step(i, steps[i]);
      return;
    }
    const std::vector<UpdateTarget> targets = update_targets(parameters_);
    update_blocks(parameters_, targets, [&](size_t i, int64_t begin, int64_t count) {
      float* buffer = buffers_.empty() ? nullptr : buffers_[i].mutable_data_ptr<float>() + begin;
      sgd_update(targets[i].weight + begin, buffer, targets[i].gradient + begin, count,
                 steps[i]);
    });
  }

  std::vector<std::pair<std::string, at::Tensor>> state() override {
    std::vector<std::pair<std::string, at::Tensor>> named;
    for (size_t i = 0; i < buffers_.size(); ++i) {
      named.emplace_back("momentum_buffer/" + parameters_[i].name, buffers_[i]);
    }
    return named;
  }

 private:
  void device_step(size_t i, const SgdStep& step) {
    const at::NoGradGuard off;
    const Parameter& parameter = parameters_[i];
    if (!parameter.value.grad().defined()) return;
    at::Tensor weight = parameter.master.detach();
    at::Tensor update = parameter.value.grad().view(weight.sizes()) * step.gradient_scale;
    if (step.weight_decay != 0) update.add_(weight, step.weight_decay);
    if (!buffers_.empty()) update = buffers_[i].mul_(step.momentum).add_(update);
    weight.sub_(update, step.lr);
    if (!parameter.value.is_same(parameter.master)) {
      parameter.value.detach().copy_(weight.to(parameter.dtype));
    }
  }

  const recipes::Optimizer options_;
  const std::vector<Parameter> parameters_;
  std::vector<at::Tensor> buffers_;  // empty without momentum
};

}  // namespace

std::unique_ptr<Optimizer> build_sgd(const recipes::Optimizer& optimizer,
                                     const std::vector<Parameter>& parameters) {
  return std::make_unique<Sgd>(optimizer, parameters);
}

}  // namespace temper::trainer
