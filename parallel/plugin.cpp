#include "parallel/plugin.h"

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include <dlfcn.h>

#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

namespace fs = std::filesystem;

constexpr const char* kOnCpu = "; train.device = \"cpu\" does without";

fs::path find_plugin() {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path beside = program.parent_path().parent_path() / "lib" / "libtemper_cuda.so";
  if (fs::exists(beside, ignored)) return beside;
  if (const char* given = std::getenv("TEMPER_PLUGIN"); given != nullptr && *given != '\0') {
    if (fs::exists(given, ignored)) return given;
    throw UserError(std::string("TEMPER_PLUGIN = '") + given + "': no such file");
  }
  throw UserError(
      "CUDA: " + beside.string() +
      " is not there: build temper where nvcc and a CUDA LibTorch are found, or set TEMPER_PLUGIN" +
      kOnCpu);
}

const CudaPlugin& open_plugin() {
  const fs::path path = find_plugin();
  // Never closed: LibTorch's registries keep pointers into it.
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw UserError(std::string("CUDA: cannot load ") + dlerror() + kOnCpu);
  auto* const entry = reinterpret_cast<CudaPluginFunction*>(dlsym(library, kCudaPluginSymbol));
  if (entry == nullptr)
    throw UserError("CUDA: " + path.string() + " is no plugin of temper (no " + kCudaPluginSymbol +
                    ")");
  return *entry();
}

}  // namespace

const CudaPlugin& load_cuda_plugin() {
  static const CudaPlugin& plugin = open_plugin();
  return plugin;
}

const CudaPlugin& cuda_plugin() {
  const CudaPlugin& plugin = load_cuda_plugin();
  std::string reason;
  if (plugin.device_count(reason) == 0) throw UserError("CUDA: no device: " + reason + kOnCpu);
  return plugin;
}

}  // namespace temper::parallel
