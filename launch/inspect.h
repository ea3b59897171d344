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

/// The first rows of each source of a recipe's data, in runs of tokens that are trained on or not;
/// and of the first 10,000: what is taken, cut and dropped, their lengths, and how full batches
/// are.
data::Json inspect_recipe(const std::filesystem::path& file, int64_t rows);
/// Likewise of all rows of a shard. `model`: a directory whose tokenizer gives runs of text; or "".
data::Json inspect_shard(const std::filesystem::path& file, int64_t rows, const std::string& model);

}  // namespace temper::launch
