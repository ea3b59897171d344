#include "trainer/device_rules.h"

#include <string>

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
  EXPECT_NO_THROW(check_device_does(asks_for_everything(), at::kCPU));
}

TEST(DeviceRules, ADeviceRefusesAllThatItDoesNotInALineEach) {
  EXPECT_NO_THROW(check_device_does({}, at::Device(at::kCUDA, 0)));
  try {
    check_device_does(asks_for_everything(), at::Device(at::kCUDA, 0));
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

}  // namespace
}  // namespace temper::trainer
