#pragma once

#include <string>

namespace temper::data {

/// The function `entry` of the module libtemper_NAME.so in lib/ beside the program's directory, as
/// in the build and install trees; loaded on first use, for what most runs do without. `alone`
/// binds it to its own libraries (RTLD_DEEPBIND). Throws UserError whose line begins with `where`
/// where this build has no such module (`package` is what it is built from) or it does not load.
void* module_entry(const std::string& name, const char* entry, const std::string& package,
                   const std::string& where, bool alone = false);

}  // namespace temper::data
