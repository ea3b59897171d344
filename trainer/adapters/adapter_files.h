#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "data/io/json.h"
#include "recipes/recipe.h"
#include "trainer/checkpoint/export.h"
#include "trainer/checkpoint/safetensors.h"
#include "trainer/models/config.h"

/// PEFT's adapter directory: adapter_config.json, adapter_model.safetensors, README.md. PEFT 0.21.2
/// loads what is written here without a missing or unexpected key, and what it writes is read here.
namespace temper::trainer {

/// adapter_config.json of a recipe's resolved [peft], with every field that PEFT itself writes.
/// `base`: base_model_name_or_path; `target_modules`: saved_targets() (prompt learning: none, "");
/// `model`: prompt learning states its sizes. AdaLoRA's rank_pattern is by module: the rank that is
/// left of init_r.
data::Json adapter_config(const recipes::Peft& peft, const std::string& base,
                          const recipes::NamesOrPattern& target_modules, const ModelConfig& model);

/// The other way: [peft] from an adapter's config (of PEFT 0.10 or later), all fields of its method
/// filled, target_modules as they are written there. Throws UserError naming file and field for a
/// method or a setting that Temper does not do, and for one it does not know.
recipes::Peft read_adapter_config(const std::filesystem::path& directory);

/// The same from the config itself; `where` is named in errors.
recipes::Peft peft_of_config(const data::Json& config, const std::filesystem::path& where);

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
/// adapter for another base), NaN, a directory with only adapter_model.bin (a pickle). Returns those
/// of `optional` that are there, as stored; what is given with their keys is their shape.
NamedTensors read_adapter(const std::filesystem::path& directory, const NamedTensors& tensors,
                          const NamedTensors& optional = {});

}  // namespace temper::trainer
