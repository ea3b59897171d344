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
data::Json inspect_adapter(const std::filesystem::path& directory);

/// The first rows of each file of a recipe's data, in runs of tokens that are trained on or not.
data::Json inspect_recipe(const std::filesystem::path& file, int64_t rows);
data::Json inspect_shard(const std::filesystem::path& file, int64_t rows);

}  // namespace temper::launch
