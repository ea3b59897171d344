#include "trainer/generation/sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "parallel/seed.h"
#include "recipes/diagnostic.h"
#include "trainer/ops/cpu/kernels.h"

namespace temper::trainer {

namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

/// Keskar et al. 2019 (arXiv:1909.05858), section 4.1: a token that occurred has its logit divided
/// by the penalty where positive, multiplied where negative; once, however often it occurred.
void apply_repetition_penalty(std::span<float> logits, std::span<const int32_t> seen,
                              float penalty) {
  std::vector<int32_t> ids(seen.begin(), seen.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  for (const int32_t id : ids) {
    if (static_cast<size_t>(id) >= logits.size()) continue;  // an id that the head cannot produce
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit < 0 ? logit * penalty : logit / penalty;
  }
}

/// Keeps the k largest and all that equal the k-th.
void keep_top_k(std::span<float> logits, int64_t k) {
  if (static_cast<size_t>(k) >= logits.size()) return;
  std::vector<float> sorted(logits.begin(), logits.end());
  const auto kth = sorted.begin() + (k - 1);
  std::nth_element(sorted.begin(), kth, sorted.end(), std::greater<>());
  for (float& logit : logits) {
    if (logit < *kth) logit = kRemoved;
  }
}

/// Memory of a thread for a row of the vocabulary.
enum class Row { kTempered, kProcessed, kExponentials, kSums, kCount };
std::span<float> scratch(Row row, size_t size) {
  thread_local std::vector<float> rows[static_cast<size_t>(Row::kCount)];
  std::vector<float>& memory = rows[static_cast<size_t>(row)];
  if (memory.size() < size) memory.resize(size);
  return {memory.data(), size};
}

cpu::SoftmaxRow softmax_of(std::span<const float> logits) {
  const cpu::SoftmaxRow softmax =
      cpu::kernels().softmax_row(logits.data(), static_cast<int64_t>(logits.size()));
  if (!std::isfinite(softmax.log_sum_exp)) throw RunError("the model's logits are not finite");
  return softmax;
}

/// exp(logit - largest), and their sums over blocks of cpu::kExpBlock.
struct Exponentials {
  std::span<const float> values, sums;
  double total = 0;
};

Exponentials exponentials(std::span<const float> logits, float largest) {
  constexpr auto kBlock = static_cast<size_t>(cpu::kExpBlock);
  const std::span<float> values = scratch(Row::kExponentials, logits.size());
  const std::span<float> sums = scratch(Row::kSums, (logits.size() + kBlock - 1) / kBlock);
  cpu::kernels().exp_row(logits.data(), largest, values.data(), sums.data(),
                         static_cast<int64_t>(logits.size()));
  double total = 0;
  for (const float sum : sums) total += sum;
  return {values, sums, total};
}

Exponentials exponentials(std::span<const float> logits) {
  return exponentials(logits, *std::max_element(logits.begin(), logits.end()));
}

/// Nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751) as transformers cuts it: from the
/// least likely up, candidates go while their summed probability is at most 1 - p; the most likely
/// stays.
void keep_top_p(std::span<float> logits, double p) {
  const Exponentials e = exponentials(logits);
  const auto last_largest = std::max_element(e.values.rbegin(), e.values.rend());
  const auto likeliest = static_cast<size_t>(e.values.rend() - last_largest) - 1;
  // What is so unlikely that all of its kind together stay within 1 - p needs no sorting.
  const double hopeless = 0.99 * (1 - p) / static_cast<double>(logits.size()) * e.total;
  double cumulative = 0;
  std::vector<std::pair<float, uint32_t>> rest;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i == likeliest) continue;
    if (e.values[i] < hopeless) {
      cumulative += e.values[i] / e.total;
      logits[i] = kRemoved;
    } else {
      rest.emplace_back(e.values[i], static_cast<uint32_t>(i));
    }
  }
  std::sort(rest.begin(), rest.end());
  for (const auto& [value, i] : rest) {
    cumulative += static_cast<float>(value / e.total);
    if (static_cast<float>(cumulative) > static_cast<float>(1 - p)) break;
    logits[i] = kRemoved;
  }
}

/// Nguyen et al. 2024 (arXiv:2407.01082): candidates below min_p x the largest probability go.
void keep_min_p(std::span<float> logits, double min_p) {
  const Exponentials e = exponentials(logits);  // the largest is 1
  for (size_t i = 0; i < logits.size(); ++i) {
    if (e.values[i] < static_cast<float>(min_p)) logits[i] = kRemoved;
  }
}

bool reshapes(const SamplingSettings& settings) {
  return settings.repetition_penalty != 1.0 ||
         (settings.temperature != 0 &&
          (settings.top_k > 0 || settings.top_p < 1.0 || settings.min_p > 0));
}

int32_t draw(std::span<const float> logits, float largest, uint64_t seed, int64_t sample,
             int64_t index) {
  const Exponentials e = exponentials(logits, largest);
  const double wanted = uniform_of(seed, sample, index) * e.total;
  double cumulative = 0;
  size_t block = 0;
  while (block + 1 < e.sums.size() && cumulative + e.sums[block] <= wanted) {
    cumulative += e.sums[block++];
  }
  for (size_t i = block * static_cast<size_t>(cpu::kExpBlock); i < e.values.size(); ++i) {
    cumulative += e.values[i];
    if (e.values[i] > 0 && wanted < cumulative) return static_cast<int32_t>(i);
  }
  // Rounding has left the sum short: the last that can be drawn.
  size_t last = e.values.size() - 1;
  while (e.values[last] == 0) --last;
  return static_cast<int32_t>(last);
}

}  // namespace

void process_logits(std::span<float> logits, std::span<const int32_t> seen,
                    const SamplingSettings& settings) {
  if (settings.repetition_penalty != 1.0) {
    apply_repetition_penalty(logits, seen, static_cast<float>(settings.repetition_penalty));
  }
  if (settings.temperature == 0) return;
  if (settings.temperature != 1.0) {
    const auto temperature = static_cast<float>(settings.temperature);
    for (float& logit : logits) logit /= temperature;
  }
  if (settings.top_k > 0) keep_top_k(logits, settings.top_k);
  if (settings.top_p < 1.0) keep_top_p(logits, settings.top_p);
  if (settings.min_p > 0) keep_min_p(logits, settings.min_p);
}

int32_t greedy_token(std::span<const float> logits) {
  size_t best = 0;
  for (size_t i = 1; i < logits.size(); ++i) {
    // Written so that a NaN wins and is seen below.
    if (!(logits[i] <= logits[best])) best = i;
    if (std::isnan(logits[best])) break;
  }
  if (!std::isfinite(logits[best])) throw RunError("the model's logits are not finite");
  return static_cast<int32_t>(best);
}

double uniform_of(uint64_t seed, int64_t sample, int64_t index) {
  const uint64_t bits = parallel::seed_of(static_cast<int64_t>(seed), "sampling", sample, index);
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

int32_t draw_token(std::span<const float> logits, uint64_t seed, int64_t index, int64_t sample) {
  return draw(logits, logits[static_cast<size_t>(softmax_of(logits).argmax)], seed, sample, index);
}

Choice choose(std::span<const float> logits, std::span<const int32_t> seen,
              const SamplingSettings& settings, uint64_t seed, int64_t sample, int64_t index) {
  const bool greedy = settings.temperature == 0;
  std::span<const float> tempered = logits;
  if (!greedy && settings.temperature != 1.0) {
    const std::span<float> row = scratch(Row::kTempered, logits.size());
    const auto temperature = static_cast<float>(settings.temperature);
    for (size_t i = 0; i < row.size(); ++i) row[i] = logits[i] / temperature;
    tempered = row;
  }
  const cpu::SoftmaxRow softmax = softmax_of(tempered);
  std::span<const float> final = tempered;
  cpu::SoftmaxRow drawn_from = softmax;
  if (reshapes(settings)) {
    const std::span<float> row = scratch(Row::kProcessed, logits.size());
    std::copy(logits.begin(), logits.end(), row.begin());
    process_logits(row, seen, settings);
    final = row;
    drawn_from = softmax_of(row);
  }
  const auto likeliest = static_cast<size_t>(drawn_from.argmax);
  Choice choice;
  choice.id =
      greedy ? static_cast<int32_t>(likeliest) : draw(final, final[likeliest], seed, sample, index);
  const auto id = static_cast<size_t>(choice.id);
  choice.log_prob = tempered[id] - softmax.log_sum_exp;
  if (!greedy) choice.drawn_log_prob = final[id] - drawn_from.log_sum_exp;
  return choice;
}

}  // namespace temper::trainer
