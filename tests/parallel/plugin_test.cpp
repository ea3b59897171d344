#include "parallel/plugin.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

bool plugin_is_built() {
  const auto program = std::filesystem::read_symlink("/proc/self/exe");
  return std::filesystem::exists(program.parent_path().parent_path() / "lib" / "libtemper_cuda.so");
}

// One process, one answer: the plugin is loaded once.
TEST(CudaPlugin, LoadsAndSaysInOneLineWhatIsMissing) {
  try {
    const CudaPlugin& plugin = cuda_plugin();
    std::string reason;
    EXPECT_GT(plugin.device_count(reason), 0);
  } catch (const UserError& error) {
    const std::string line = error.what();
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    EXPECT_NE(line.find("train.device = \"cpu\""), std::string::npos) << line;
    // A plugin that was built is found, and its libraries too: only a device may be missing.
    EXPECT_EQ(line.rfind(plugin_is_built() ? "CUDA: no device: " : "CUDA: ", 0), 0U) << line;
  }
}

}  // namespace

}  // namespace temper::parallel
