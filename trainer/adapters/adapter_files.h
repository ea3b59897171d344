#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "data/io/json.h"
#include "recipes/recipe.h"
#include "trainer/checkpoint/export.h"
#include "trainer/checkpoint/safetensors.h"

/// PEFT's adapter directory: adapter_config.json, adapter_model.safetensors, README.md. PEFT 0.21.2
/// loads what is written here without a missing or unexpected key, and what it writes is read here.
namespace temper::trainer {

/// peft_of_config (adapter_config.h) of a directory's adapter_config.json.
recipes::Peft read_adapter_config(const std::filesystem::path& directory);

/// base_model_name_or_path of an adapter directory; "" when it has none.
std::string adapter_base(const std::filesystem::path& directory);

/// Writes the three files, complete or absent, each tensor in its own type, and the tokenizer's
/// where the adapter's is not its base's. An earlier adapter at `out` is replaced, anything else
/// refused.
void write_adapter(const std::filesystem::path& out, const data::Json& config,
                   const NamedTensors& tensors, const std::string& model_card,
                   const std::optional<TokenizerFiles>& tokenizer = std::nullopt);

/// The tokenizer of an adapter: the adapter's own where its directory has one, else `base`'s.
std::filesystem::path tokenizer_of(const std::filesystem::path& adapter,
                                   const std::filesystem::path& base);

/// Its adapter_model.safetensors. Throws UserError where there is none, or only a pickle.
std::filesystem::path adapter_weights(const std::filesystem::path& directory);

/// Reads adapter_model.safetensors into `tensors` by key, converting to their type. Throws
/// UserError with all findings: missing, unexpected and misshapen tensors (naming both shapes: an
/// adapter for another base), NaN, a directory with only adapter_model.bin (a pickle). Returns
/// those of `optional` that are there, as stored; what is given with their keys is their shape.
NamedTensors read_adapter(const std::filesystem::path& directory, const NamedTensors& tensors,
                          const NamedTensors& optional = {});

}  // namespace temper::trainer
