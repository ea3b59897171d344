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
  if (const char* given = std::getenv("TEMPER_PLUGIN"); given != nullptr && *given != '\0') {
    if (fs::exists(given, ignored)) return given;
    throw UserError(std::string("TEMPER_PLUGIN = '") + given + "': no such file");
  }
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path beside = program.parent_path().parent_path() / "lib" / "libtemper_cuda.so";
  if (fs::exists(beside, ignored)) return beside;
  throw UserError(
      "CUDA: " + beside.string() +
      " is not there: build temper where nvcc and a CUDA LibTorch are found, or set TEMPER_PLUGIN" +
      kOnCpu);
}

// Never closed: LibTorch's registries keep pointers into it.
void* open_plugin() {
  void* const library = dlopen(find_plugin().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw UserError(std::string("CUDA: cannot load ") + dlerror() + kOnCpu);
  return library;
}

}  // namespace

void* cuda_plugin_symbol(const char* name) {
  static void* const library = open_plugin();
  void* const symbol = dlsym(library, name);
  if (symbol == nullptr)
    throw UserError(std::string("CUDA: libtemper_cuda.so is no plugin of this temper (no ") + name +
                    "): build both from the same sources");
  return symbol;
}

const CudaPlugin& load_cuda_plugin() {
  static const CudaPlugin& plugin =
      *reinterpret_cast<CudaPluginFunction*>(cuda_plugin_symbol(kCudaPluginSymbol))();
  return plugin;
}

const CudaPlugin& cuda_plugin() {
  const CudaPlugin& plugin = load_cuda_plugin();
  std::string reason;
  if (plugin.device_count(reason) == 0) throw UserError("CUDA: no device: " + reason + kOnCpu);
  return plugin;
}

}  // namespace temper::parallel
