// Schedules against transformers, optimizers against torch.optim and the loss scaler against
// torch.amp: goldens of make_optimizer.py.
#include "trainer/optimizers/optimizer.h"

#include <fstream>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/parity/golden.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/optimizers/loss_scaler.h"
#include "trainer/optimizers/schedule.h"

namespace temper::trainer {
namespace {

recipes::Schedule schedule_of(const data::Json& setting) {
  recipes::Schedule schedule;
  schedule.kind = setting.at("kind");
  schedule.warmup = setting.at("warmup");
  for (const auto& [key, value] : setting.at("arguments").items()) {
    if (key == "num_cycles")
      schedule.num_cycles = value;
    else if (key == "min_lr")
      schedule.min_lr = value;
    else if (key == "min_lr_rate")
      schedule.min_lr_rate = value;
    else if (key == "warmup_lr_rate")
      schedule.warmup_lr_rate = value;
    else if (key == "lr_end")
      schedule.lr_end = value;
    else if (key == "power")
      schedule.power = value;
    else if (key == "timescale")
      schedule.timescale = value;
    else if (key == "num_decay_steps")
      schedule.num_decay_steps = value;
    else if (key == "min_lr_ratio")
      schedule.min_lr_ratio = value;
    else if (key == "decay_type")
      schedule.decay_type = value;
    else if (key == "warmup_type")
      schedule.warmup_type = value;
    else
      ADD_FAILURE() << "no such key: " << key;
  }
  return schedule;
}

TEST(LossScalerParity, ScaleAndGoodStepsEqualGradScalers) {
  const data::Json golden = data::read_json(golden_files("optimizer") / "loss_scaler.json");
  LossScaler scaler;
  EXPECT_EQ(scaler.scale(), golden.at("start").get<double>());
  int64_t made = 0;
  for (size_t run = 0; run < golden.at("times").size(); ++run) {
    const bool overflowed = golden.at("overflowed").at(run);
    const int64_t times = golden.at("times").at(run);
    for (int64_t i = 0; i < times; ++i) {
      scaler.update(overflowed);
      made += overflowed ? 0 : 1;
    }
    EXPECT_EQ(scaler.scale(), golden.at("scale").at(run).get<double>()) << run;
    EXPECT_EQ(scaler.state().good_steps, golden.at("good_steps").at(run).get<int64_t>()) << run;
    EXPECT_EQ(made, golden.at("made").at(run).get<int64_t>()) << run;
  }
}

TEST(ScheduleParity, EveryFactorEqualsTransformers) {
  std::ifstream file(golden_files("optimizer") / "schedules.json");
  const data::Json golden = data::Json::parse(file);
  ASSERT_GE(golden.at("settings").size(), 20u);
  for (const data::Json& setting : golden.at("settings")) {
    const recipes::Schedule schedule = schedule_of(setting);
    const int64_t total = golden.at("total");
    for (int64_t step = 1; step <= total; ++step) {
      const double expected = setting.at("factors").at(step - 1);
      EXPECT_NEAR(schedule_factor(schedule, golden.at("lr"), step, total), expected, 1e-12)
          << schedule.kind << " " << setting.at("arguments") << " step " << step;
    }
  }
}

class OptimizerParity : public testing::TestWithParam<const char*> {};

TEST_P(OptimizerParity, FiftyStepsEqualTorch) {
  const SafetensorsFile golden(golden_files("optimizer") / (std::string(GetParam()) + ".safetensors"));
  const data::Json settings = data::Json::parse(golden.metadata().at("settings"));
  recipes::Optimizer options;
  options.kind = settings.at("kind");
  options.betas = settings.value("betas", options.betas);
  options.eps = settings.value("eps", options.eps);
  options.momentum = settings.value("momentum", 0.0);
  options.weight_decay = settings.value("weight_decay", 0.0);
  const double lr = settings.at("lr");
  const double count = std::stod(golden.metadata().at("count"));
  const double max_grad_norm = std::stod(golden.metadata().at("max_grad_norm"));
  const int64_t steps = std::stoll(golden.metadata().at("steps"));

  std::vector<Parameter> parameters;
  for (const char* name : {"linear.weight", "linear.bias", "norm.weight"}) {
    Parameter& parameter = parameters.emplace_back();
    parameter.name = name;
    parameter.value = golden.tensor(std::string("start/") + name).clone().requires_grad_();
    parameter.value.mutable_grad() = at::zeros_like(parameter.value.detach());
    parameter.master = parameter.value;
    parameter.decay = parameter.name == "linear.weight";
  }
  const auto optimizer = build_optimizer(options, parameters);

  int checked = 0;
  for (int64_t step = 1; step <= steps; ++step) {
    std::vector<at::Tensor> gradients;
    for (Parameter& parameter : parameters) {
      gradients.push_back(parameter.value.mutable_grad());
      gradients.back().copy_(golden.tensor("gradients/" + parameter.name)[step - 1]);
    }
    const double norm = global_norm(gradients) / count;
    EXPECT_NEAR(norm, golden.tensor("norms")[step - 1].item<double>(), 1e-6 * norm);
    const double factor = 1 - static_cast<double>(step - 1) / static_cast<double>(steps);
    optimizer->step(lr * factor, clip_factor(norm, max_grad_norm) / count);

    for (const Parameter& parameter : parameters) {
      const std::string key = "after/" + std::to_string(step) + "/" + parameter.name;
      if (!golden.contains(key)) continue;
      const at::Tensor expected = golden.tensor(key);
      const double error = (parameter.value.detach() - expected).abs().max().item<double>();
      EXPECT_LE(error, 1e-6 * expected.abs().max().item<double>()) << key;
      ++checked;
    }
  }
  EXPECT_EQ(checked, 15);
}

INSTANTIATE_TEST_SUITE_P(Torch, OptimizerParity,
                         testing::Values("adamw", "adamw_decay", "sgd", "sgd_momentum"));

}  // namespace
}  // namespace temper::trainer
