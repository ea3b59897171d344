// A model that rewards, on the emulated device and on the CPU (which tests/parity holds against
// transformers).
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "tests/gpu/emulator/waits.h"
#include "trainer/ops/device.h"
#include "trainer/rewards/reward.h"

extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels();

namespace temper::trainer {
namespace {

TEST(DeviceReward, AModelScoresThereAsOnTheCpu) {
  use_kernels(at::kPrivateUse1, temper_cuda_kernels());
  const std::filesystem::path goldens =
      std::filesystem::path(std::getenv("TEMPER_SOURCE_DIR")) / "tests/parity/golden/rewards";
  const data::Json cases = data::read_json(goldens / "scores.json").at("cases");
  ASSERT_FALSE(cases.empty());
  recipes::Reward recipe;
  recipe.kind = "model";
  recipe.path = (goldens / "model").string();
  std::vector<std::vector<double>> scores;
  for (const at::Device device : {at::Device(at::kCPU), at::Device(at::kPrivateUse1, 0)}) {
    const auto reward = build_reward(recipe, 16, device);
    for (const data::Json& golden : cases) {
      Completed completed;
      completed.prompt = golden.at("prompt").get<std::string>();
      completed.completion = golden.at("completion").get<std::string>();
      reward->submit(completed);
    }
    const int64_t before = emulator::waits();
    scores.push_back(reward->collect());
    EXPECT_EQ(emulator::waits() - before, device.is_cpu() ? 0 : 1) << "its scores, together";
  }
  for (size_t i = 0; i < scores[0].size(); ++i) {
    EXPECT_NEAR(scores[1].at(i), scores[0][i], 1e-5 * std::max(1.0, std::abs(scores[0][i])));
  }
}

}  // namespace
}  // namespace temper::trainer
