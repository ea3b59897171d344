#pragma once

#include <filesystem>
#include <optional>
#include <string>

/// Models by the name they have on a hub, in the cache directory that the ecosystem's programs
/// share:
///
///     CACHE/models--org--name/refs/main            the commit that a branch or tag stood for
///     CACHE/models--org--name/snapshots/COMMIT/    links to
///     CACHE/models--org--name/blobs/DIGEST         the files' contents
namespace temper::data {

struct HubName {
  std::string repository;         // "org/name"
  std::string revision = "main";  // a branch, a tag or a commit
};

/// "org/name" or "org/name@revision"; nothing where `text` cannot be one, or is a directory.
std::optional<HubName> hub_name(const std::string& text);

/// HF_HUB_CACHE, else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else
/// ~/.cache/huggingface/hub.
std::filesystem::path hub_cache();

/// CACHE/models--org--name.
std::filesystem::path hub_directory(const HubName& name);

/// The snapshot of the revision, if the cache has one. No network.
std::optional<std::filesystem::path> cached_snapshot(const HubName& name);

/// What a recipe or a command means by `given`: a directory, else the snapshot of a hub name, which
/// `download` fetches first (download.h). Throws UserError whose line begins with `key`
/// ("model.path") where it is neither, and as download_snapshot() does.
std::filesystem::path model_directory(const std::string& given, const std::string& key,
                                      bool download = false);

}  // namespace temper::data
