#include "trainer/generation/generate.h"

#include <algorithm>
#include <chrono>
#include <span>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "data/text/tokenizer.h"
#include "recipes/diagnostic.h"
#include "trainer/generation/kv_cache.h"
#include "trainer/generation/sampling.h"
#include "trainer/generation/text_stream.h"
#include "trainer/models/model.h"

namespace temper::trainer {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Logits [V] float32 after `tokens`; of a prompt only the last position meets the output
/// projection.
at::Tensor next_logits(Model& model, KvCache& cache, std::span<const int32_t> tokens) {
  at::Tensor ids = at::empty({1, static_cast<int64_t>(tokens.size())}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), ids.data_ptr<int64_t>());
  const at::Tensor hidden_BTD = model.hidden_cached(ids, cache);
  return head_logits(hidden_BTD.select(1, hidden_BTD.size(1) - 1), model.head()).squeeze(0);
}

void check_prompt(const std::vector<int32_t>& prompt, const ModelConfig& config,
                  int64_t virtual_tokens) {
  if (prompt.empty()) throw UserError("the prompt has no tokens: give some text");
  const int64_t length = static_cast<int64_t>(prompt.size()) + virtual_tokens;
  if (length >= config.max_position_embeddings) {
    throw UserError("the prompt has " + std::to_string(length) +
                    " tokens" + (virtual_tokens > 0 ? ", the adapter's included" : "") +
                    ": must be below the model's context, " +
                    std::to_string(config.max_position_embeddings) +
                    " (max_position_embeddings in config.json)");
  }
  for (const int32_t id : prompt) {
    if (id < 0 || id >= config.vocab_size) {
      throw UserError("the prompt has token id " + std::to_string(id) +
                      ", but the model's vocab_size is " + std::to_string(config.vocab_size) +
                      ": the tokenizer belongs to another model?");
    }
  }
}

}  // namespace

Completion generate(Model& model, const data::Tokenizer& tokenizer,
                    const std::vector<int32_t>& prompt, const SamplingSettings& settings,
                    const std::function<void(const std::string&)>& on_text) {
  const ModelConfig& config = model.config();
  const int64_t virtual_tokens = model.virtual_tokens() ? model.virtual_tokens()->count : 0;
  check_prompt(prompt, config, virtual_tokens);
  const at::NoGradGuard no_grad;
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  const int64_t room =
      std::min(settings.max_new_tokens,
               config.max_position_embeddings - prompt_tokens - virtual_tokens);
  KvCache cache(config.num_hidden_layers, /*batch=*/1, config.num_key_value_heads, config.head_dim,
                virtual_tokens + prompt_tokens + room, model.head().weight.scalar_type());
  TextStream stream(tokenizer, settings.stop, on_text);

  Completion completion{
      .ids = {}, .text = {}, .finish_reason = "length", .prompt_tokens = prompt_tokens};
  std::vector<int32_t> seen = prompt;
  const auto start = std::chrono::steady_clock::now();
  at::Tensor logits = next_logits(model, cache, prompt);
  completion.prefill_seconds = seconds_since(start);

  const auto decode_start = std::chrono::steady_clock::now();
  for (int64_t index = 0; index < room; ++index) {
    const std::span<float> logits_V(logits.data_ptr<float>(), static_cast<size_t>(logits.numel()));
    process_logits(logits_V, seen, settings);
    const int32_t id = settings.temperature == 0 ? greedy_token(logits_V)
                                                 : draw_token(logits_V, settings.seed, index);
    if (std::find(settings.eos_ids.begin(), settings.eos_ids.end(), id) != settings.eos_ids.end()) {
      completion.finish_reason = "eos";
      break;
    }
    seen.push_back(id);
    completion.ids.push_back(id);
    if (stream.push(id)) {
      completion.finish_reason = "stop";
      break;
    }
    if (index + 1 < room) logits = next_logits(model, cache, {&id, 1});
  }
  if (stream.finish()) completion.finish_reason = "stop";
  completion.decode_seconds = seconds_since(decode_start);
  completion.text = stream.text();
  return completion;
}

}  // namespace temper::trainer
