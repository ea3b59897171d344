#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "trainer/generation/generate.h"

/// Many sequences sampled together: continuous batching over a paged cache of keys and values
/// (Kwon et al. 2023, arXiv:2309.06180). The samples of a prompt share the pages of its prefix, and
/// a sequence that ends makes room for the next one at once.
namespace temper::trainer {

struct SampleRequest {
  std::vector<int32_t> prompt;
  int64_t samples = 1;
  uint64_t seed = 0;  // sample s of it is drawn from (seed, s) alone, whatever else is sampled
};

struct Sampled {
  std::vector<int32_t> ids;  // with the ending eos, where it ended in one
  /// Of ids, softmax of logits / temperature (greedy: of the logits): what training computes.
  std::vector<float> log_probs;
  /// Of ids, in the distribution drawn from (top_k, top_p, min_p, ...); greedy: 0.
  std::vector<float> drawn_log_probs;
  std::string finish_reason;  // "eos" | "stop" | "length"
};

struct EngineTimes {
  double prefill_seconds = 0;
  double decode_seconds = 0;
};

struct EngineOptions {
  int64_t slots = 64;  // sequences decoded together
  /// Log-probabilities are those of the training forward to the bit, and do not depend on what else
  /// is decoded. (generation.exact)
  bool exact = false;
  /// Text of a sample as soon as it can no longer change (text that ends in U+FFFD or could begin a
  /// stop string is held back).
  std::function<void(int64_t request, int64_t sample, const std::string& piece)> on_text{};
  EngineTimes* times = nullptr;  // added to
};

/// Called as soon as a sample has ended, in that order; `request` and `sample` are indices.
using OnSampled = std::function<void(int64_t request, int64_t sample, const Sampled& sampled)>;

/// All samples of all requests, [request][sample]. Greedy where settings.temperature is 0;
/// settings.seed is not looked at. Throws UserError for a prompt that is empty or leaves no room in
/// the model's context, and in exact mode for a model whose rotary embedding depends on the length.
std::vector<std::vector<Sampled>> sample(Model& model, const data::Tokenizer& tokenizer,
                                         std::span<const SampleRequest> requests,
                                         const SamplingSettings& settings,
                                         const EngineOptions& options = {},
                                         const OnSampled& on_sampled = {});

}  // namespace temper::trainer
