#include "trainer/optimizers/adamw.h"

#include <cmath>

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
    const double beta1 = options_.betas.at(0);
    const double beta2 = options_.betas.at(1);
    const double t = static_cast<double>(updates);
    const AdamWStep common = {
        .gradient_scale = static_cast<float>(gradient_scale),
        .beta2 = static_cast<float>(beta2),
        .one_minus_beta1 = static_cast<float>(1 - beta1),
        .one_minus_beta2 = static_cast<float>(1 - beta2),
        .decay = 1,
        .step_size = 0,
        .root_correction = static_cast<float>(std::sqrt(1 - std::pow(beta2, t))),
        .eps = static_cast<float>(options_.eps),
    };
    const auto step_of = [&](const Parameter& parameter) {
      AdamWStep own = common;
      own.step_size = static_cast<float>(lr * parameter.lr_scale / (1 - std::pow(beta1, t)));
      if (parameter.decay)
        own.decay = static_cast<float>(1 - lr * parameter.lr_scale * options_.weight_decay);
      return own;
    };
    std::vector<AdamWStep> steps;
    for (const Parameter& parameter : parameters_) steps.push_back(step_of(parameter));

    const std::vector<UpdateTarget> targets = update_targets(parameters_);
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
  const recipes::Optimizer options_;
  const std::vector<Parameter> parameters_;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
};

}  // namespace

std::unique_ptr<Optimizer> build_adamw(const recipes::Optimizer& optimizer,
                                       const std::vector<Parameter>& parameters) {
  return std::make_unique<AdamW>(optimizer, parameters);
}

}  // namespace temper::trainer
