#include <string>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/gpu/device.h"
#include "trainer/ops/device.h"

namespace temper::trainer {
namespace {

// The plugin is loaded before any LibTorch call.
std::string open_device() {
  try {
    use_cuda(0);
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

class Device : public testing::Environment {
  void SetUp() override { missing_device(); }
};
const auto* const device = testing::AddGlobalTestEnvironment(new Device);

}  // namespace

const std::string& missing_device() {
  static const std::string missing = open_device();
  return missing;
}

at::Device test_device() { return {at::kCUDA, 0}; }

OnDevice::OnDevice() = default;
OnDevice::~OnDevice() = default;

}  // namespace temper::trainer
