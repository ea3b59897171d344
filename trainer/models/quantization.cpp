#include "trainer/models/quantization.h"

#include "recipes/diagnostic.h"
#include "recipes/name_pattern.h"

namespace temper::trainer {

const char* name_of(QuantKind kind) {
  return kind == QuantKind::kNf4 ? "nf4" : kind == QuantKind::kFp4 ? "fp4" : "int8";
}

std::optional<QuantKind> quant_kind(const std::string& name) {
  for (const QuantKind kind : {QuantKind::kNf4, QuantKind::kFp4, QuantKind::kInt8}) {
    if (name == name_of(kind)) return kind;
  }
  TEMPER_CHECK(name == "none", "no such quantisation: " + name);
  return std::nullopt;
}

std::optional<QuantKind> stored_quantization(const data::Json& config, const std::string& where) {
  const auto found = config.find("quantization_config");
  if (found == config.end() || found->is_null()) return std::nullopt;
  const auto is = [&](const char* key, const data::Json& value) {
    return found->is_object() && found->value(key, data::Json()) == value;
  };
  if (is("load_in_8bit", true)) return QuantKind::kInt8;
  for (const QuantKind kind : {QuantKind::kNf4, QuantKind::kFp4}) {
    if (is("load_in_4bit", true) && is("bnb_4bit_quant_type", name_of(kind))) return kind;
  }
  throw UserError(where +
                  ": quantization_config: only bitsandbytes' 4 and 8 bits are supported; use the "
                  "original model");
}

std::string kept_in_full(const data::Json& config, const std::string& module) {
  const auto found = config.find("quantization_config");
  if (found == config.end() || !found->is_object()) return "";
  const data::Json names = found->value("llm_int8_skip_modules", data::Json());
  if (!names.is_array()) return "";
  for (const data::Json& entry : names) {
    if (!entry.is_string()) continue;
    const std::string name = entry;
    const recipes::NamePattern pattern("(?:" + name + R"()(?:(?<=\.)|(?=\.|$)).*)",
                                       "quantization_config.llm_int8_skip_modules");
    if (module.ends_with(name) || pattern.matches(module)) return name;
  }
  return "";
}

}  // namespace temper::trainer
