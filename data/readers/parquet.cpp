#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include <dlfcn.h>

#include "data/readers/reader.h"
#include "recipes/diagnostic.h"

/// Arrow is loaded when a Parquet file is opened: it is 60 MB that other runs need not wait for. And it is bound to itself
/// (RTLD_DEEPBIND), because libparquet brings a simdjson of another version under the names of ours.
namespace temper::data {

namespace {

namespace fs = std::filesystem;

#ifdef __SANITIZE_ADDRESS__
constexpr int kBinding = RTLD_NOW | RTLD_LOCAL;  // AddressSanitizer cannot follow a library that is bound to itself
#else
constexpr int kBinding = RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND;
#endif

using OpenParquet = Reader*(const char*, void (*)(std::string_view, const std::string&));

// From lib/ beside the program's directory, as in the build and install trees.
OpenParquet* load_module(const std::string& file) {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path module = program.parent_path().parent_path() / "lib" / "libtemper_parquet.so";
  if (!fs::exists(module, ignored)) {
    throw UserError(file + ": this build has no Parquet reader: launch/setup.sh installs Arrow, then build again");
  }
  void* const library = dlopen(module.c_str(), kBinding);
  if (library == nullptr) throw UserError(file + ": cannot load the Parquet reader: " + dlerror());
  return reinterpret_cast<OpenParquet*>(dlsym(library, "temper_open_parquet"));
}

}  // namespace

std::unique_ptr<Reader> open_parquet(const fs::path& file, const ReaderOptions&) {
  if (file.extension() != ".parquet") {
    throw UserError(file.string() + ": Parquet is compressed inside; expected a .parquet file as it was written");
  }
  static OpenParquet* const open = load_module(file.string());
  return std::unique_ptr<Reader>(open(file.c_str(), require_text));
}

}  // namespace temper::data
