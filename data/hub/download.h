#pragma once

#include <filesystem>

#include "data/hub/repository.h"

namespace temper::data {

/// Brings what training needs of a repository (configuration, tokenizer, templates, safetensors)
/// from the hub at HF_ENDPOINT into its cache, with HF_TOKEN where it is set, and returns the
/// snapshot's directory. A name is pinned to its commit first; what the cache has is not fetched
/// again; what was cut off goes on where it ended; a file counts when it has the digest that the
/// hub lists; the revision's ref is written last. Processes that want the same file wait for the
/// one that fetches it. With HF_HUB_OFFLINE=1 there is no network, and the cache must have it.
/// Throws UserError where there is no endpoint, no such repository or revision, or no permission;
/// RunError where the network fails again and again, or a file has another digest than listed.
std::filesystem::path download_snapshot(const HubName& name);

}  // namespace temper::data
