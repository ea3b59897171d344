#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/io/json.h"

namespace temper::data {
class Tokenizer;
}

/// Text from a model: greedy or sampled, one sequence (of many together: engine.h),
/// streamed.
namespace temper::trainer {

class Model;

/// transformers' names and order of operations: repetition_penalty, temperature, top_k, top_p,
/// min_p.
struct SamplingSettings {
  double temperature = 0.0;  // 0: greedy
  double top_p = 1.0;
  int64_t top_k = 0;  // 0: off
  double min_p = 0.0;
  double repetition_penalty = 1.0;  // over prompt and completion
  int64_t max_new_tokens = 128;
  std::vector<std::string> stop{};  // the completion ends before the first of these
  std::vector<int32_t> eos_ids{};
  uint64_t seed = 0;
};

/// Defaults from generation_config.json (an object, or null): do_sample false means greedy.
SamplingSettings settings_from(const data::Json& generation_config);

struct Completion {
  std::vector<int32_t> ids;   // without the ending eos
  std::string text;           // without special tokens and stop strings
  std::string finish_reason;  // "eos" | "stop" | "length"
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

/// `on_text` receives pieces of text as soon as they can no longer change (text that ends in U+FFFD
/// or could begin a stop string is held back). Throws UserError when the prompt is empty or longer
/// than the model's context.
Completion generate(Model& model, const data::Tokenizer& tokenizer,
                    const std::vector<int32_t>& prompt, const SamplingSettings& settings,
                    const std::function<void(const std::string&)>& on_text = {});

}  // namespace temper::trainer
