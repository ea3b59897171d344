#pragma once

#include <filesystem>
#include <string>

#include "data/io/json.h"
#include "recipes/recipe.h"
#include "trainer/models/config.h"

/// PEFT's adapter_config.json (0.21.2; read: of 0.10 or later) and [peft].
namespace temper::trainer {

/// adapter_config.json of a recipe's resolved [peft], with every field that PEFT itself writes.
/// `base`: base_model_name_or_path; `target_modules`: saved_targets() (prompt learning: none, "");
/// `model`: prompt learning states its sizes. AdaLoRA's rank_pattern is by module: the rank that is
/// left of init_r.
data::Json adapter_config(const recipes::Peft& peft, const std::string& base,
                          const recipes::NamesOrPattern& target_modules, const ModelConfig& model);

/// The other way: all fields of the method filled, target_modules as they are written there.
/// `where` is named in errors. Throws UserError naming the field for a method or a setting that
/// Temper does not do, for one it does not know, and for a value that [peft] would refuse.
recipes::Peft peft_of_config(const data::Json& config, const std::filesystem::path& where);

}  // namespace temper::trainer
