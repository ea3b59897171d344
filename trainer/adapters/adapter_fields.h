#pragma once

#include <string>
#include <vector>

#include "data/io/json.h"
#include "recipes/schema.h"

/// The fields of PEFT's configs as adapter_config.json holds them. Which a method has, and their
/// defaults, is said in recipes/peft_methods.cpp; here is how their values are spelled, and the
/// fields that are no keys of [peft].
namespace temper::trainer {

/// null for a value that is unset.
data::Json to_json(const recipes::Value& value);

/// `json` as a value of `type`; null is unset, of a map empty. Returns what it must be ("a whole
/// number"), or "" when it is that.
std::string read_value(const data::Json& json, recipes::Type type, recipes::Value& value);

/// A field of PEFT that Temper does not do: the value that it has where it does nothing, which is
/// also what PEFT writes.
struct FixedField {
  const char* key;
  data::Json value;
};
const std::vector<FixedField>& fixed_fields(const std::string& method);

/// Methods whose config says whether the layers store their weights transposed. PEFT corrects it by
/// the layers themselves, so that it says nothing that the model does not.
bool has_transposed_flag(const std::string& method);
inline constexpr const char* kTransposedFlag = "fan_in_fan_out";

/// lora and adalora, whose config in PEFT goes on from LoRA's.
bool has_lora_fields(const std::string& method);

/// "peft_type" of a method: its name in capitals.
std::string peft_type_of(const std::string& method);

/// "rho" of "eva_config.rho", whose parent is `parent`; "" for all other keys.
std::string within(const std::string& key, const std::string& parent);

/// AdaLoRA keeps of each module's init_r directions those that are true in rank_pattern, under the
/// module's name and this.
inline constexpr const char* kAdaLoraKey = ".lora_E";

}  // namespace temper::trainer
