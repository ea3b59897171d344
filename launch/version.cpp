#include "launch/version.h"

#include <cstdlib>
#include <system_error>

#include <dlfcn.h>

#include <mpi.h>

namespace temper::launch {

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "unknown";
  const std::string all(text, static_cast<size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

std::filesystem::path program_directory() {
  std::error_code ignored;
  return std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
}

CudaSeen look_for_cuda() {
  CudaSeen seen;
  std::error_code ignored;
  const char* const given = std::getenv("TEMPER_PLUGIN");
  const auto plugin = given != nullptr && *given != '\0'
                          ? std::filesystem::path(given)
                          : program_directory().parent_path() / "lib" / "libtemper_cuda.so";
  if (std::filesystem::exists(plugin, ignored)) seen.plugin = plugin;
  if (void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
    // int cuDriverGetVersion(int*), one of the few calls that need no cuInit: 13000 stands
    // for 13.0.
    using DriverVersion = int (*)(int*);
    const auto version_of = reinterpret_cast<DriverVersion>(dlsym(driver, "cuDriverGetVersion"));
    int version = 0;
    if (version_of != nullptr && version_of(&version) == 0) {
      seen.driver = std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
    }
    dlclose(driver);
  }
  return seen;
}

}  // namespace temper::launch
