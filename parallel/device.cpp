#include "parallel/device.h"

#include <algorithm>
#include <cstdlib>
#include <vector>

#include <dlfcn.h>

#include "parallel/plugin.h"
#include "recipes/diagnostic.h"

namespace temper::parallel {

namespace {

// Loading CUDA's libraries takes half a second: not where nothing can come of it.
bool worth_loading() {
  if (const char* given = std::getenv("TEMPER_PLUGIN"); given != nullptr && *given != '\0') {
    return true;
  }
  void* const driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (driver != nullptr) dlclose(driver);
  return driver != nullptr;
}

/// Empty where there is a device.
std::string what_is_missing() {
  if (!worth_loading()) return "no NVIDIA driver found";
  try {
    std::string reason;
    return load_cuda_plugin().device_count(reason) > 0 ? "" : reason;
  } catch (const UserError& missing) {
    return missing.what();
  }
}

// Launchers that give each process its own devices number them from 0 again; who shares one is seen
// from all names together.
int own_device(Session& session) {
  const World& world = session.world();
  std::string ignored;
  const int devices = cuda_plugin().device_count(ignored);
  const int index = world.local_rank % devices;
  if (world.size == 1) return index;
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  std::string name = "device " + std::to_string(index) + " of " + world.host;
  if (visible != nullptr) name += std::string(", CUDA_VISIBLE_DEVICES=") + visible;
  std::vector<std::string> names = session.gather_text(name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  const std::string shared = session.broadcast_text(twice == names.end() ? "" : *twice);
  if (!shared.empty()) {
    throw UserError("CUDA: several processes have " + shared +
                    ": start one process a device, or set train.device = \"cpu\"");
  }
  return index;
}

}  // namespace

DeviceChoice choose_device(recipes::Device wanted, Session& session) {
  if (wanted == recipes::Device::kCpu) return {};
  if (wanted == recipes::Device::kAuto) {
    std::string missing = what_is_missing();
    if (session.world().size > 1) {
      std::string of_any;  // all ranks compute on the same kind of device
      for (const std::string& text : session.gather_text(missing)) {
        if (of_any.empty()) of_any = text;
      }
      missing = session.broadcast_text(of_any);
    }
    if (!missing.empty()) return {.index = {}, .why_not = missing};
  }
  return {.index = own_device(session)};
}

std::optional<std::string> name_of_device(recipes::Device wanted) {
  if (wanted == recipes::Device::kCpu || !what_is_missing().empty()) return std::nullopt;
  return cuda_plugin().device_name(0);
}

void load_plugin_early(recipes::Device wanted) {
  if (wanted == recipes::Device::kCpu) return;
  if (wanted == recipes::Device::kAuto && !worth_loading()) return;
  try {
    load_cuda_plugin();
  } catch (const UserError&) {
  }
}

}  // namespace temper::parallel
