#pragma once

#include <cstdint>
#include <filesystem>

#include "data/io/json.h"

/// What `temper inspect` says, as one JSON object with a "kind"; text is printed from the same
/// object.
namespace temper::launch {

data::Json inspect_safetensors(const std::filesystem::path& file);
data::Json inspect_checkpoint(const std::filesystem::path& directory);
data::Json inspect_run(const std::filesystem::path& directory);
data::Json inspect_model(const std::filesystem::path& directory);

}  // namespace temper::launch
