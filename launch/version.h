#pragma once

#include <filesystem>
#include <string>

/// What this program is made of: for --version, doctor and environment.json.
namespace temper::launch {

struct BuildInfo {
  std::string version;       // "0.1.0"
  std::string git_revision;  // of the sources, "+changes" where they differed from it; "unknown"
                             // outside a checkout
  std::string build_type;    // "Release"
  std::string compiler;      // "GNU 12.2.0"
  std::string libtorch;      // "2.11.0+cu130"
  std::string hdf5;          // as compiled against
  bool parquet = false;
};
const BuildInfo& build_info();

/// "Open MPI v4.1.4". Needs no MPI_Init.
std::string mpi_library();

struct CudaSeen {
  std::filesystem::path plugin;  // libtemper_cuda.so beside this program, or $TEMPER_PLUGIN; empty: not built
  std::string driver;            // "13.0", the newest CUDA the driver knows; "": no driver
};
/// Looks, starts nothing: no CUDA context, no LibTorch.
CudaSeen look_for_cuda();

/// Where this executable lies (bin/ of a build or install tree).
std::filesystem::path program_directory();

}  // namespace temper::launch
