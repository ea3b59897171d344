#pragma once

#include <optional>
#include <string>

#include "data/io/json.h"
#include "trainer/ops/quantized.h"

/// Kinds of quantised weights by name, in recipes and in config.json.
namespace temper::trainer {

const char* name_of(QuantKind kind);  // "nf4", "fp4", "int8"
/// Nothing for "none".
std::optional<QuantKind> quant_kind(const std::string& name);

/// What config.json's quantization_config says of the stored weights: bitsandbytes' 4 or 8 bits, or
/// nothing where there is none. Throws UserError naming `where` for any other.
std::optional<QuantKind> stored_quantization(const data::Json& config, const std::string& where);

/// The entry of quantization_config's llm_int8_skip_modules that keeps `module` in full precision, by
/// transformers' rules (a regular expression up to a dot or the end, or an ending); "" for none.
std::string kept_in_full(const data::Json& config, const std::string& module);

}  // namespace temper::trainer
