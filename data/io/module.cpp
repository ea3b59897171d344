#include "data/io/module.h"

#include <filesystem>
#include <system_error>

#include <dlfcn.h>

#include "recipes/diagnostic.h"

namespace temper::data {

namespace fs = std::filesystem;

#ifdef __SANITIZE_ADDRESS__
constexpr int kAlone = 0;  // AddressSanitizer cannot follow a library that is bound to itself
#else
constexpr int kAlone = RTLD_DEEPBIND;
#endif

void* module_entry(const std::string& name, const char* entry, const std::string& package,
                   const std::string& where, bool alone) {
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path module =
      program.parent_path().parent_path() / "lib" / ("libtemper_" + name + ".so");
  if (!fs::exists(module, ignored)) {
    throw UserError(where + ": this build has no " + name + " module: launch/setup.sh installs " +
                    package + ", then build again");
  }
  void* const library = dlopen(module.c_str(), RTLD_NOW | RTLD_LOCAL | (alone ? kAlone : 0));
  void* const found = library == nullptr ? nullptr : dlsym(library, entry);
  if (found == nullptr)
    throw UserError(where + ": cannot load the " + name + " module: " + dlerror());
  return found;
}

}  // namespace temper::data
