#include "trainer/generation/draws.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {
namespace {

std::vector<Choice> choose_on_cpu(const at::Tensor& logits, std::span<const Draw> draws,
                                  const SamplingSettings& settings) {
  const auto vocabulary = static_cast<size_t>(logits.size(1));
  std::vector<Choice> choices(draws.size());
  at::parallel_for(0, std::ssize(draws), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const Draw& draw = draws[i];
      const std::span<const float> row(input<float>(logits) + draw.row * logits.size(1),
                                       vocabulary);
      const std::span<const int32_t> seen =
          draw.seen != nullptr ? draw.seen->ids : std::span<const int32_t>();
      choices[i] = choose(row, seen, settings, draw.seed, draw.sample, draw.index);
    }
  });
  return choices;
}

// `values` must outlive what is done with the result.
template <class T>
at::Tensor sent(const std::vector<T>& values, at::Device device) {
  const auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
  return sent_to(device, at::from_blob(const_cast<T*>(values.data()), {bytes}, at::kByte));
}

std::vector<Choice> choose_on_device(const at::Tensor& logits, std::span<const Draw> draws,
                                     const SamplingSettings& settings) {
  const int64_t vocabulary = logits.size(1), count = std::ssize(draws);
  TEMPER_CHECK(vocabulary <= cuda::kLargestVocabulary, "a million tokens at most");
  const bool greedy = settings.temperature == 0;
  std::vector<int32_t> new_ids;
  std::vector<cuda::TokenDraw> there;
  for (const Draw& draw : draws) {
    there.push_back({.row = draw.row, .uniform = uniform_of(draw.seed, draw.sample, draw.index)});
    if (draw.seen == nullptr || settings.repetition_penalty == 1.0) continue;
    SeenTokens& seen = *draw.seen;
    if (!seen.bits.defined()) {
      seen.bits = at::zeros({(vocabulary + 31) / 32}, logits.options().dtype(at::kInt));
    }
    there.back().seen = output<uint32_t>(seen.bits);
    there.back().marks = std::ssize(seen.ids) - static_cast<int64_t>(seen.marked);
    new_ids.insert(new_ids.end(), seen.ids.begin() + static_cast<std::ptrdiff_t>(seen.marked),
                   seen.ids.end());
    seen.marked = seen.ids.size();
  }
  const at::Tensor marked = sent(new_ids, logits.device());
  int64_t first = 0;
  for (cuda::TokenDraw& draw : there) {
    draw.marked = input<int32_t>(marked) + first;
    first += draw.marks;
  }
  const at::Tensor sent_draws = sent(there, logits.device());
  const at::Tensor scratch =
      greedy ? at::Tensor() : at::empty({count, vocabulary}, logits.options());
  const at::Tensor drawn = at::empty({count * static_cast<int64_t>(sizeof(cuda::DrawnToken))},
                                     logits.options().dtype(at::kByte));
  launch(logits, kernels_for(logits)->draw_tokens,
         cuda::SamplingView{
             .logits = input<float>(logits),
             .draws = input<cuda::TokenDraw>(sent_draws),
             .drawn = output<cuda::DrawnToken>(drawn),
             .scratch = greedy ? nullptr : output<float>(scratch),
             .count = count,
             .vocabulary = vocabulary,
             .greedy = greedy,
             .penalty = static_cast<float>(settings.repetition_penalty),
             .temperature = greedy ? 1.0f : static_cast<float>(settings.temperature),
             .top_k = settings.top_k,
             .tail = settings.top_p < 1.0 ? static_cast<float>(1 - settings.top_p) : 0.0f,
             .min_p = static_cast<float>(settings.min_p)});
  const at::Tensor here = drawn.cpu();
  std::vector<Choice> choices;
  for (int64_t i = 0; i < count; ++i) {
    const cuda::DrawnToken& token = input<cuda::DrawnToken>(here)[i];
    if (token.id < 0) throw RunError("the model's logits are not finite");
    choices.push_back({token.id, token.log_prob, token.drawn_log_prob});
  }
  return choices;
}

}  // namespace

std::vector<Choice> choose(const at::Tensor& logits, std::span<const Draw> draws,
                           const SamplingSettings& settings) {
  TEMPER_CHECK(logits.dim() == 2 && logits.is_contiguous() && logits.scalar_type() == at::kFloat,
               "rows of float32 logits");
  if (draws.empty()) return {};
  return kernels_for(logits) ? choose_on_device(logits, draws, settings)
                             : choose_on_cpu(logits, draws, settings);
}

}  // namespace temper::trainer
