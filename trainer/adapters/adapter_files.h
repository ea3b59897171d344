#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/io/json.h"
#include "recipes/recipe.h"
#include "trainer/checkpoint/safetensors.h"

/// PEFT's adapter directory: adapter_config.json, adapter_model.safetensors, README.md. PEFT 0.21.2
/// loads what is written here without a missing or unexpected key, and what it writes is read here.
namespace temper::trainer {

/// adapter_config.json of a recipe's resolved [peft], with every field that PEFT itself writes.
/// `base`: base_model_name_or_path; `target_modules`: what the recipe's choice came to.
data::Json adapter_config(const recipes::Peft& peft, const std::string& base,
                          const std::vector<std::string>& target_modules);

/// The other way: [peft] from an adapter's config. Throws UserError naming file and field for a
/// method or a setting that Temper does not do, and for one it does not know.
recipes::Peft read_adapter_config(const std::filesystem::path& directory);

/// base_model_name_or_path of an adapter directory; "" when it has none.
std::string adapter_base(const std::filesystem::path& directory);

/// Writes the pair, complete or absent, with the tensors in `dtype` (parameters of the base that
/// were trained along keep theirs). An earlier adapter at `out` is replaced, anything else refused.
void write_adapter(const std::filesystem::path& out, const data::Json& config,
                   const NamedTensors& tensors, const std::string& model_card);

/// Reads adapter_model.safetensors into `tensors` by key. Throws UserError with all findings:
/// missing, unexpected and misshapen tensors (naming both shapes: an adapter for another base), NaN,
/// a directory with only adapter_model.bin (a pickle).
void read_adapter(const std::filesystem::path& directory, const NamedTensors& tensors);

}  // namespace temper::trainer
