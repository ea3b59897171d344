#include "trainer/optimizers/adamw.h"

#include <cmath>

#include "trainer/ops/device.h"
#include "trainer/optimizers/update.h"

namespace temper::trainer {

namespace {

class AdamW : public Optimizer {
 public:
  AdamW(const recipes::Optimizer& options, const std::vector<Parameter>& parameters)
      : options_(options), parameters_(trainable(parameters)) {
    for (const Parameter& parameter : parameters_) {
      exp_avg_.push_back(zeros_like_master(parameter));
      exp_avg_sq_.push_back(zeros_like_master(parameter));
    }
  }

  void step(double lr, double gradient_scale) override {
    ++updates;
    std::vector<AdamWStep> steps;
    for (const Parameter& parameter : parameters_) {
      steps.push_back(adamw_step(options_, parameter, updates, lr, gradient_scale));
    }
    const std::vector<UpdateTarget> targets = update_targets(parameters_);
    if (!parameters_.empty() && kernels_for(parameters_.front().master)) {
      for (size_t i = 0; i < targets.size(); ++i) device_step(i, targets[i], steps[i]);
      return;
    }
    update_blocks(parameters_, targets, [&](size_t i, int64_t begin, int64_t count) {
      adamw_update(targets[i].weight + begin, exp_avg_[i].mutable_data_ptr<float>() + begin,
                   exp_avg_sq_[i].mutable_data_ptr<float>() + begin, targets[i].gradient + begin,
                   count, steps[i]);
    });
  }

  std::vector<std::pair<std::string, at::Tensor>> state() override {
    std::vector<std::pair<std::string, at::Tensor>> named;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      named.emplace_back("exp_avg/" + parameters_[i].name, exp_avg_[i]);
      named.emplace_back("exp_avg_sq/" + parameters_[i].name, exp_avg_sq_[i]);
    }
    return named;
  }

 private:
  void device_step(size_t i, const UpdateTarget& target, const AdamWStep& step) {
    if (target.gradient == nullptr) return;
    const Parameter& parameter = parameters_[i];
    launch(parameter.master, kernels_for(parameter.master)->adamw,
           cuda::AdamWView{.weight = target.weight,
                           .exp_avg = exp_avg_[i].mutable_data_ptr<float>(),
                           .exp_avg_sq = exp_avg_sq_[i].mutable_data_ptr<float>(),
                           .gradient = target.gradient,
                           .value = {.data = target.value,
                                     .compute = element_of(target.compute),
                                     .weights = element_of(parameter.dtype)},
                           .count = parameter.master.numel()},
           step);
  }

  const recipes::Optimizer options_;
  const std::vector<Parameter> parameters_;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
};

}  // namespace

AdamWStep adamw_step(const recipes::Optimizer& options, const Parameter& parameter, int64_t updates,
                     double base_lr, double gradient_scale) {
  const double beta1 = options.betas.at(0), beta2 = options.betas.at(1);
  const double lr = base_lr * parameter.lr_scale;
  const auto t = static_cast<double>(updates);
  return {.gradient_scale = static_cast<float>(gradient_scale),
          .beta1 = static_cast<float>(beta1),
          .beta2 = static_cast<float>(beta2),
          .one_minus_beta1 = static_cast<float>(1 - beta1),
          .one_minus_beta2 = static_cast<float>(1 - beta2),
          .decay = parameter.decay ? static_cast<float>(1 - lr * options.weight_decay) : 1,
          .step_size = static_cast<float>(lr / (1 - std::pow(beta1, t))),
          .root_correction = static_cast<float>(std::sqrt(1 - std::pow(beta2, t))),
          .eps = static_cast<float>(options.eps)};
}

std::unique_ptr<Optimizer> build_adamw(const recipes::Optimizer& optimizer,
                                       const std::vector<Parameter>& parameters) {
  return std::make_unique<AdamW>(optimizer, parameters);
}

}  // namespace temper::trainer
