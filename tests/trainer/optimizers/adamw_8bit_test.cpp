#include "trainer/optimizers/adamw_8bit.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/trainer/checkpoint/scratch.h"
#include "trainer/checkpoint/state.h"

namespace temper::trainer {
namespace {

recipes::Optimizer options() {
  recipes::Optimizer optimizer;
  optimizer.kind = "adamw_8bit";
  optimizer.weight_decay = 0.01;
  return optimizer;
}

std::vector<Parameter> parameters() {
  std::vector<Parameter> made;
  for (const int64_t size : {100, 4095, 4096, 20011}) {
    Parameter& parameter = made.emplace_back();
    parameter.name = "p" + std::to_string(size);
    parameter.master = at::randn({size}, at::detail::createCPUGenerator(size));
    parameter.value = parameter.master.to(at::kBFloat16).requires_grad_();
    parameter.value.mutable_grad() = at::randn({size}, at::detail::createCPUGenerator(size + 1));
  }
  return made;
}

NamedTensors named(Optimizer& optimizer, const std::vector<Parameter>& parameters) {
  NamedTensors tensors;
  for (const auto& [name, tensor] : optimizer.state())
    tensors.emplace_back("optimizer/" + name, tensor);
  for (const Parameter& p : parameters) tensors.emplace_back("weights/" + p.name, p.master);
  return tensors;
}

TEST(AdamW8bit, MomentsAreBytesFrom4096ElementsOn) {
  const std::vector<Parameter> made = parameters();
  for (const auto& [name, tensor] : build_adamw_8bit(options(), made)->state()) {
    const bool codes = name.ends_with("p4096") || name.ends_with("p20011");
    const bool scales = name.find("absmax") != std::string::npos;
    EXPECT_EQ(tensor.scalar_type(), codes && !scales ? at::kByte : at::kFloat) << name;
    EXPECT_EQ(scales && name.ends_with("p20011"), tensor.numel() == 79) << name;
  }
}

TEST(AdamW8bit, FollowsAdamWAtADistance) {
  std::vector<Parameter> ours = parameters();
  std::vector<Parameter> exact = parameters();
  recipes::Optimizer adamw = options();
  adamw.kind = "adamw";
  const auto optimizer = build_optimizer(options(), ours);
  const auto reference = build_optimizer(adamw, exact);
  for (int i = 0; i < 5; ++i) {
    optimizer->step(1e-2, 0.5);
    reference->step(1e-2, 0.5);
  }
  for (size_t i = 0; i < ours.size(); ++i) {
    const double moved = (exact[i].master - parameters()[i].master).norm().item<double>();
    const double apart = (ours[i].master - exact[i].master).norm().item<double>();
    EXPECT_LE(apart, (i < 2 ? 1e-5 : 0.1) * moved) << ours[i].name;
  }
}

TEST(AdamW8bit, ACheckpointedRunGoesOnWithTheSameBits) {
  const Scratch scratch;
  std::vector<Parameter> straight = parameters();
  const auto optimizer = build_optimizer(options(), straight);
  for (int i = 0; i < 3; ++i) optimizer->step(1e-2, 1.0);
  CheckpointWriter writer(scratch.path(), 0, 1, false);
  writer.begin(3, {.tensors = named(*optimizer, straight), .scalars = data::Json::object()});
  writer.commit(1, std::nullopt);

  std::vector<Parameter> resumed = parameters();
  const auto other = build_optimizer(options(), resumed);
  load_checkpoint(scratch / "step-000003", named(*other, resumed));
  other->updates = 3;
  optimizer->step(1e-2, 1.0);
  other->step(1e-2, 1.0);
  const NamedTensors expected = named(*optimizer, straight);
  const NamedTensors found = named(*other, resumed);
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_TRUE(at::equal(found[i].second, expected[i].second)) << expected[i].first;
  }
}

TEST(AdamW8bit, ThreadsChangeNoBit) {
  const int before = at::get_num_threads();
  std::vector<at::Tensor> results;
  for (const int threads : {1, 2, 3}) {
    at::set_num_threads(threads);
    std::vector<Parameter> made = parameters();
    const auto optimizer = build_optimizer(options(), made);
    for (int i = 0; i < 3; ++i) optimizer->step(1e-2, 1.0);
    std::vector<at::Tensor> all;
    for (const auto& [name, tensor] : named(*optimizer, made))
      all.push_back(tensor.to(at::kFloat).view(-1));
    results.push_back(at::cat(all));
  }
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(results[0], results[1]));
  EXPECT_TRUE(at::equal(results[0], results[2]));
}

}  // namespace
}  // namespace temper::trainer
