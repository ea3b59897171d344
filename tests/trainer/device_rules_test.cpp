#include "trainer/device_rules.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

recipes::Recipe asks_for_everything() {
  recipes::Recipe recipe;
  recipe.run.deterministic = recipes::Deterministic::kLayout;
  recipe.generation.exact = true;
  recipe.parallel.backend = recipes::Backend::kMpi;
  return recipe;
}

TEST(DeviceRules, TheCpuDoesItAll) {
  EXPECT_NO_THROW(check_device_does(asks_for_everything(), at::kCPU, 0));
}

TEST(DeviceRules, ADeviceRefusesAllThatItDoesNotInALineEach) {
  EXPECT_NO_THROW(check_device_does({}, at::Device(at::kCUDA, 0), 80));
  try {
    check_device_does(asks_for_everything(), at::Device(at::kCUDA, 0), 90);
    FAIL() << "nothing was refused";
  } catch (const UserError& error) {
    ASSERT_EQ(error.lines().size(), 3U);
    for (const char* key : {"run.deterministic", "generation.exact", "parallel.backend"}) {
      EXPECT_NE(std::string(error.what()).find(key), std::string::npos) << key;
    }
    for (const std::string& line : error.lines()) {
      EXPECT_NE(line.find("train.device = \"cpu\""), std::string::npos) << line;
    }
  }
}

TEST(DeviceRules, Float8NeedsADeviceThatHasIt) {
  recipes::Recipe recipe;
  recipe.train.float8 = recipes::Float8::kRowwise;
  EXPECT_NO_THROW(check_device_does(recipe, at::kCPU, 0));
  EXPECT_NO_THROW(check_device_does(recipe, at::Device(at::kCUDA, 0), 89));
  try {
    check_device_does(recipe, at::Device(at::kCUDA, 0), 86);
    FAIL() << "nothing was refused";
  } catch (const UserError& error) {
    EXPECT_EQ(error.lines(),
              (std::vector<std::string>{
                  "train.float8: needs a device of compute capability 8.9 or above, not 8.6: use "
                  "\"none\", or try the recipe on the CPU (train.device = \"cpu\")"}));
  }
}

TEST(DeviceRules, TheCpuHasNoGraphsAndNoNccl) {
  recipes::Recipe recipe;
  recipe.train.cuda_graphs = true;
  recipe.parallel.backend = recipes::Backend::kNccl;
  EXPECT_NO_THROW(check_device_does(recipe, at::Device(at::kCUDA, 0), 80));
  try {
    check_device_does(recipe, at::kCPU, 0);
    FAIL() << "nothing was refused";
  } catch (const UserError& error) {
    EXPECT_EQ(error.lines(),
              (std::vector<std::string>{
                  "train.cuda_graphs = true: the device is the CPU: must be false",
                  "parallel.backend = \"nccl\": the device is the CPU: must be \"auto\" or \"mpi\""}));
  }
  recipe.train.device = recipes::Device::kCuda;  // a plan where there is none
  EXPECT_NO_THROW(check_device_does(recipe, at::kCPU, 0));
}

}  // namespace
}  // namespace temper::trainer
