#include "trainer/generation/generate.h"

#include <algorithm>

#include "trainer/generation/engine.h"

namespace temper::trainer {

Completion generate(Model& model, const data::Tokenizer& tokenizer,
                    const std::vector<int32_t>& prompt, const SamplingSettings& settings,
                    const std::function<void(const std::string&)>& on_text) {
  Completion completion;
  completion.prompt_tokens = static_cast<int64_t>(prompt.size());
  EngineTimes times;
  const EngineOptions options{.slots = 1,
                              .on_text =
                                  [&](int64_t, int64_t, const std::string& piece) {
                                    completion.text += piece;
                                    if (on_text) on_text(piece);
                                  },
                              .times = &times};
  const SampleRequest request{.prompt = prompt, .samples = 1, .seed = settings.seed};
  Sampled sampled = std::move(sample(model, tokenizer, {&request, 1}, settings, options)[0][0]);
  completion.ids = std::move(sampled.ids);
  completion.finish_reason = std::move(sampled.finish_reason);
  const auto& eos = settings.eos_ids;
  if (!completion.ids.empty() &&
      std::find(eos.begin(), eos.end(), completion.ids.back()) != eos.end()) {
    completion.ids.pop_back();
  }
  completion.prefill_seconds = times.prefill_seconds;
  completion.decode_seconds = times.decode_seconds;
  return completion;
}

}  // namespace temper::trainer
