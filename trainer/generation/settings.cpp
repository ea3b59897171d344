#include <string>

#include "recipes/diagnostic.h"
#include "trainer/generation/generate.h"

namespace temper::trainer {

namespace {

template <typename T>
T number_or(const data::Json& config, const char* key, T otherwise) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return otherwise;
  if (!found->is_number()) {
    throw UserError(std::string("generation_config.json: ") + key + " = " + found->dump() +
                    ": must be a number");
  }
  return found->get<T>();
}

}  // namespace

SamplingSettings settings_from(const data::Json& generation_config) {
  SamplingSettings settings;
  if (!generation_config.is_object()) return settings;
  const auto sample = generation_config.find("do_sample");
  if (sample != generation_config.end() && *sample == true) {
    settings.temperature = number_or(generation_config, "temperature", 1.0);
    settings.top_p = number_or(generation_config, "top_p", settings.top_p);
    settings.top_k = number_or(generation_config, "top_k", settings.top_k);
    settings.min_p = number_or(generation_config, "min_p", settings.min_p);
  }
  settings.repetition_penalty =
      number_or(generation_config, "repetition_penalty", settings.repetition_penalty);
  settings.max_new_tokens = number_or(generation_config, "max_new_tokens", settings.max_new_tokens);
  const auto eos = generation_config.find("eos_token_id");
  if (eos != generation_config.end() && !eos->is_null()) {
    const data::Json list = eos->is_array() ? *eos : data::Json::array({*eos});
    for (const data::Json& id : list) {
      if (!id.is_number_integer()) {
        throw UserError("generation_config.json: eos_token_id = " + eos->dump() +
                        ": must be an id or a list of ids");
      }
      settings.eos_ids.push_back(id.get<int32_t>());
    }
  }
  return settings;
}

}  // namespace temper::trainer
