#include "data/hub/repository.h"

#include <cstdlib>
#include <fstream>
#include <regex>
#include <system_error>

#include "data/hub/download.h"
#include "recipes/diagnostic.h"

namespace temper::data {

namespace fs = std::filesystem;

std::optional<HubName> hub_name(const std::string& text) {
  static const std::regex form(
      "([A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*)(?:@([A-Za-z0-9_][A-Za-z0-9_./"
      "-]*))?");
  std::smatch parts;
  std::error_code ignored;
  if (fs::is_directory(text, ignored)) return {};
  if (!std::regex_match(text, parts, form) || text.find("..") != std::string::npos) return {};
  HubName name{.repository = parts[1]};
  if (parts[2].matched) name.revision = parts[2];
  return name;
}

fs::path hub_cache() {
  const auto directory = [](const char* variable) {
    const char* value = std::getenv(variable);
    return fs::path(value == nullptr ? "" : value);
  };
  if (const fs::path cache = directory("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const fs::path home = directory("HF_HOME"); !home.empty()) return home / "hub";
  const fs::path caches = directory("XDG_CACHE_HOME");
  return (caches.empty() ? directory("HOME") / ".cache" : caches) / "huggingface" / "hub";
}

fs::path hub_directory(const HubName& name) {
  std::string folder = "models--" + name.repository;
  folder.replace(folder.find('/'), 1, "--");
  return hub_cache() / folder;
}

std::optional<fs::path> cached_snapshot(const HubName& name) {
  const fs::path directory = hub_directory(name);
  std::string commit = name.revision;
  if (std::ifstream ref(directory / "refs" / name.revision); ref) ref >> commit;
  const fs::path snapshot = directory / "snapshots" / commit;
  std::error_code ignored;
  if (!fs::is_directory(snapshot, ignored)) return {};
  return snapshot;
}

fs::path model_directory(const std::string& given, const std::string& key, bool download) {
  std::error_code ignored;
  if (fs::is_directory(given, ignored)) return given;
  const std::string start = key + " = \"" + given + "\": ";
  const std::optional<HubName> name = hub_name(given);
  if (!name) throw UserError(start + "no such directory (a model directory with config.json)");
  if (download) return download_snapshot(*name);
  if (const auto snapshot = cached_snapshot(*name)) return *snapshot;
  throw UserError(start + "neither a directory nor in the hub's cache (" +
                  hub_directory(*name).string() + "): model.download = true fetches it");
}

}  // namespace temper::data
