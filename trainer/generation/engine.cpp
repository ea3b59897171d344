#include "trainer/generation/engine.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"
#include "trainer/generation/decode_graphs.h"
#include "trainer/generation/draws.h"
#include "trainer/generation/kv_cache.h"
#include "trainer/generation/text_stream.h"
#include "trainer/metrics/memory.h"
#include "trainer/models/model.h"
#include "trainer/ops/device.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/head_products.h"
#include "trainer/ops/linear.h"

namespace temper::trainer {
namespace {

constexpr int64_t kPrefillTokens = 4096;  // of several prompts together, at most

// Adds what passes between its beginning and its end.
class Stopwatch {
 public:
  explicit Stopwatch(double& seconds) : seconds_(seconds) {}
  ~Stopwatch() {
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

 private:
  double& seconds_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

int64_t tokens_in_front(Model& model) {
  const auto& front = model.virtual_tokens();
  return front && front->context->enabled ? front->count : 0;
}

void check_prompt(const std::vector<int32_t>& prompt, const ModelConfig& config,
                  int64_t virtual_tokens) {
  if (prompt.empty()) throw UserError("the prompt has no tokens: give some text");
  const int64_t length = static_cast<int64_t>(prompt.size()) + virtual_tokens;
  if (length >= config.max_position_embeddings) {
    throw UserError("the prompt has " + std::to_string(length) + " tokens" +
                    (virtual_tokens > 0 ? ", the adapter's included" : "") +
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

void check_exact(const ModelConfig& config) {
  const std::string& rope = config.rope.type;
  if (rope == "dynamic" || rope == "longrope") {
    throw UserError("generation.exact: this model's rope_type is " + rope +
                    ", whose angles change with the length of the whole sequence: must be false");
  }
}

// A request whose prompt is in the cache, until all its samples have begun.
struct Prompt {
  int64_t request;
  int64_t sequence;
  at::Tensor logits;  // [V] after it
  int64_t begun = 0;  // samples
};

// A sample that is being decoded.
struct Active {
  int64_t request, sample, sequence;
  int64_t room;               // tokens it may still get
  SeenTokens seen;            // prompt and completion; empty unless the penalty asks
  std::unique_ptr<TextStream> text;
};

class Engine {
 public:
  Engine(Model& model, const data::Tokenizer& tokenizer, std::span<const SampleRequest> requests,
         const SamplingSettings& settings, const EngineOptions& options,
         const OnSampled& on_sampled)
      : model_(model),
        tokenizer_(tokenizer),
        requests_(requests),
        settings_(settings),
        options_(options),
        on_sampled_(on_sampled),
        times_(options.times != nullptr ? *options.times : own_times_),
        front_(tokens_in_front(model)),
        cache_({.layers = model.config().num_hidden_layers,
                .kv_heads = model.config().num_key_value_heads,
                .head_dim = model.config().head_dim,
                .dtype = model.head().weight.scalar_type(),
                .device = model.head().weight.device()}) {
    TEMPER_CHECK(options.slots > 0 && settings.max_new_tokens > 0, "something is to be decoded");
    if (options.exact) check_exact(model.config());
    int64_t samples = 0, longest = 0;
    for (const SampleRequest& request : requests) {
      check_prompt(request.prompt, model.config(), front_);
      results_.emplace_back(static_cast<size_t>(request.samples));
      samples += request.samples;
      const int64_t length = std::ssize(request.prompt) + front_;
      longest = std::max(longest, length + room_after(length));
    }
    if (samples > 0 && !options.exact && DecodeGraphs::apply_to(model)) {
      graphs_.emplace(model, cache_, std::min(options.slots, samples), longest);
    }
  }

  std::vector<std::vector<Sampled>> run() {
    const at::NoGradGuard no_grad;
    const TrainingProducts same_bits(options_.exact);
    for (;;) {
      while (static_cast<int64_t>(active_.size()) < options_.slots && admit()) {
      }
      if (active_.empty()) break;
      step();
    }
    TEMPER_CHECK(cache_.pages_in_use() == 0, "pages of the cache are left over");
    return std::move(results_);
  }

 private:
  // Begins samples of the next prompt in the free slots. False when there is none.
  bool admit() {
    if (waiting_.empty()) prefill();
    if (waiting_.empty()) return false;
    Prompt& prompt = waiting_.front();
    const SampleRequest& request = requests_[prompt.request];
    const int64_t free = options_.slots - static_cast<int64_t>(active_.size());
    const int64_t count = std::min(free, request.samples - prompt.begun);
    const size_t first = active_.size();
    for (int64_t i = 0; i < count; ++i) active_.push_back(begin_sample(prompt));
    const at::Tensor logits = prompt.logits.unsqueeze(0);
    if (prompt.begun == request.samples) {
      cache_.remove(prompt.sequence);
      waiting_.pop_front();
    }
    choose_tokens(first, logits);
    return true;
  }

  Active begin_sample(Prompt& prompt) {
    const SampleRequest& request = requests_[prompt.request];
    Active active{.request = prompt.request,
                  .sample = prompt.begun++,
                  .sequence = cache_.fork(prompt.sequence),
                  .room = room_after(std::ssize(request.prompt) + front_),
                  .seen = {},
                  .text = {}};
    if (settings_.repetition_penalty != 1.0) active.seen.ids = request.prompt;
    if (options_.on_text || !settings_.stop.empty()) {
      active.text = std::make_unique<TextStream>(
          tokenizer_, settings_.stop,
          [this, r = active.request, s = active.sample](const std::string& piece) {
            if (options_.on_text) options_.on_text(r, s, piece);
          });
    }
    return active;
  }

  // Computes the prompts of as many of the next requests as there are slots for.
  void prefill() {
    const Stopwatch watch(times_.prefill_seconds);
    const int64_t free = options_.slots - static_cast<int64_t>(active_.size());
    int64_t samples = 0;
    std::vector<int64_t> ids;
    std::vector<CachedRun> runs;
    std::vector<int64_t> last;  // token of each prompt
    for (; next_request_ < static_cast<int64_t>(requests_.size()) && samples < free;
         ++next_request_) {
      const SampleRequest& request = requests_[next_request_];
      if (request.samples == 0) continue;
      if (!runs.empty() &&
          static_cast<int64_t>(ids.size() + request.prompt.size()) > kPrefillTokens)
        break;
      ids.insert(ids.end(), request.prompt.begin(), request.prompt.end());
      last.push_back(static_cast<int64_t>(ids.size()) - 1);
      runs.push_back({cache_.add(), static_cast<int64_t>(request.prompt.size())});
      waiting_.push_back({next_request_, runs.back().sequence, {}});
      samples += request.samples;
    }
    if (runs.empty()) return;
    const at::Tensor hidden = model_.hidden_cached(at::tensor(ids, at::kLong), runs, cache_);
    const at::Tensor logits =
        logits_of(hidden.index_select(0, sent_to(hidden.device(), at::tensor(last, at::kLong))));
    // Rows of their own: the batch would live as long as its last row.
    for (size_t i = 0; i < runs.size(); ++i) {
      waiting_[i].logits = runs.size() == 1 ? logits[0] : logits[static_cast<int64_t>(i)].clone();
    }
  }

  // One more token for every active sample.
  void step() {
    at::Tensor logits;
    {
      const Stopwatch watch(times_.decode_seconds);
      std::vector<int64_t> ids, sequences;
      for (const Active& active : active_) {
        ids.push_back(result(active).ids.back());
        sequences.push_back(active.sequence);
      }
      if (graphs_) {
        logits = graphs_->step(ids, sequences);
      } else {
        std::vector<CachedRun> runs;
        for (const int64_t sequence : sequences) runs.push_back({sequence, 1});
        logits = logits_of(model_.hidden_cached(at::tensor(ids, at::kLong), runs, cache_));
      }
    }
    choose_tokens(0, logits);
  }

  // The next token of the active samples from `first` on, each from a row of the logits, or all
  // from the only one; those that end leave.
  void choose_tokens(size_t first, const at::Tensor& logits) {
    const Stopwatch watch(times_.decode_seconds);
    std::vector<Draw> draws;
    for (size_t i = first; i < active_.size(); ++i) {
      Active& active = active_[i];
      draws.push_back({.row = logits.size(0) > 1 ? static_cast<int64_t>(i) : 0,
                       .seed = requests_[active.request].seed,
                       .sample = active.sample,
                       .index = static_cast<int64_t>(result(active).ids.size()),
                       .seen = &active.seen});
    }
    const std::vector<Choice> choices = choose(logits, draws, settings_);
    std::vector<Active> going_on;
    for (size_t i = 0; i < active_.size(); ++i) {
      if (i < first || !take(active_[i], choices[i - first])) {
        going_on.push_back(std::move(active_[i]));
      } else {
        finish(active_[i]);
      }
    }
    active_ = std::move(going_on);
  }

  // True when the sample has ended.
  bool take(Active& active, const Choice& choice) {
    Sampled& sampled = result(active);
    sampled.ids.push_back(choice.id);
    sampled.log_probs.push_back(choice.log_prob);
    sampled.drawn_log_probs.push_back(choice.drawn_log_prob);
    --active.room;
    const auto& eos = settings_.eos_ids;
    if (std::find(eos.begin(), eos.end(), choice.id) != eos.end()) {
      sampled.finish_reason = "eos";
    } else {
      if (settings_.repetition_penalty != 1.0) active.seen.ids.push_back(choice.id);
      if (active.text && active.text->push(choice.id)) {
        sampled.finish_reason = "stop";
      } else if (active.room == 0) {
        sampled.finish_reason = "length";
      }
    }
    return !sampled.finish_reason.empty();
  }

  void finish(Active& active) {
    Sampled& sampled = result(active);
    if (active.text && active.text->finish()) sampled.finish_reason = "stop";
    cache_.remove(active.sequence);
    if (on_sampled_) on_sampled_(active.request, active.sample, sampled);
  }

  Sampled& result(const Active& active) { return results_[active.request][active.sample]; }

  // Tokens that a sequence of so many may still get.
  int64_t room_after(int64_t length) const {
    return std::min(settings_.max_new_tokens, model_.config().max_position_embeddings - length);
  }

  // [M, V] float32, as token_log_probs computes them.
  at::Tensor logits_of(const at::Tensor& hidden) const {
    at::Tensor logits = at::empty({hidden.size(0), model_.head().weight.size(0)},
                                  hidden.options().dtype(at::kFloat));
    HeadProducts(model_.head(), hidden, 0).logits_into(logits);
    return logits;
  }

  Model& model_;
  const data::Tokenizer& tokenizer_;
  std::span<const SampleRequest> requests_;
  const SamplingSettings& settings_;
  const EngineOptions& options_;
  const OnSampled& on_sampled_;
  EngineTimes own_times_;
  EngineTimes& times_;
  int64_t front_;  // virtual tokens
  KvCache cache_;
  std::optional<DecodeGraphs> graphs_;
  int64_t next_request_ = 0;
  std::deque<Prompt> waiting_;
  std::vector<Active> active_;
  std::vector<std::vector<Sampled>> results_;
};

}  // namespace

std::vector<std::vector<Sampled>> sample(Model& model, const data::Tokenizer& tokenizer,
                                         std::span<const SampleRequest> requests,
                                         const SamplingSettings& settings,
                                         const EngineOptions& options,
                                         const OnSampled& on_sampled) {
  // Decoding multiplies the same weights with a few rows each time.
  const KeptWeights kept(meminfo_bytes("MemAvailable") / 2);
  return Engine(model, tokenizer, requests, settings, options, on_sampled).run();
}

}  // namespace temper::trainer
