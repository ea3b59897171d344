// What is said where there is no device; where there is one, that it is taken. The whole path is
// tests/gpu/program_test.py's.
#include "parallel/device.h"

#include <cstdlib>
#include <string>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {
namespace {

class ChooseDevice : public testing::Test {
 protected:
  Session session = Session::start();
};

// The first of the tests: a plugin that has been loaded stays.
TEST_F(ChooseDevice, APluginThatIsNotThereIsNamed) {
  ASSERT_EQ(setenv("TEMPER_PLUGIN", "/nowhere/libtemper_cuda.so", 1), 0);
  load_plugin_early(recipes::Device::kCuda);  // says nothing
  const DeviceChoice choice = choose_device(recipes::Device::kAuto, session);
  unsetenv("TEMPER_PLUGIN");
  EXPECT_FALSE(choice.index);
  EXPECT_EQ(choice.why_not, "TEMPER_PLUGIN = '/nowhere/libtemper_cuda.so': no such file");
}

TEST_F(ChooseDevice, TheCpuLooksForNothing) {
  const DeviceChoice choice = choose_device(recipes::Device::kCpu, session);
  EXPECT_FALSE(choice.index);
  EXPECT_EQ(choice.why_not, "");
}

TEST_F(ChooseDevice, AutoSaysWhyItIsTheCpu) {
  const DeviceChoice choice = choose_device(recipes::Device::kAuto, session);
  EXPECT_NE(choice.index.has_value(), !choice.why_not.empty());
  EXPECT_EQ(choice.why_not.find('\n'), std::string::npos);
}

TEST_F(ChooseDevice, CudaIsRefusedInOneLineWhereThereIsNone) {
  try {
    EXPECT_EQ(choose_device(recipes::Device::kCuda, session).index, 0);
  } catch (const UserError& error) {
    const std::string line = error.what();
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    EXPECT_NE(line.find("train.device = \"cpu\""), std::string::npos) << line;
  }
}

}  // namespace
}  // namespace temper::parallel
