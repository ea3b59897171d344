#include "trainer/generation/sampling.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "parallel/seed.h"
#include "recipes/diagnostic.h"

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

/// exp(logit - max) / sum in float32, and the candidates' indices: those not removed yet.
struct Candidates {
  std::vector<size_t> indices;
  std::vector<float> probabilities;  // of the candidates
};

Candidates softmax(std::span<const float> logits) {
  Candidates candidates;
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == kRemoved) continue;
    candidates.indices.push_back(i);
    candidates.probabilities.push_back(std::exp(logits[i] - largest));
    sum += candidates.probabilities.back();
  }
  for (float& p : candidates.probabilities) p = static_cast<float>(p / sum);
  return candidates;
}

/// Nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751) as transformers cuts it: from the
/// least likely up, candidates go while their summed probability is at most 1 - p; the most likely
/// stays.
void keep_top_p(std::span<float> logits, double p) {
  const Candidates candidates = softmax(logits);
  std::vector<size_t> order(candidates.indices.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return logits[candidates.indices[a]] < logits[candidates.indices[b]];
  });
  double cumulative = 0;
  for (size_t i = 0; i + 1 < order.size(); ++i) {
    cumulative += candidates.probabilities[order[i]];
    if (static_cast<float>(cumulative) > static_cast<float>(1 - p)) break;
    logits[candidates.indices[order[i]]] = kRemoved;
  }
}

/// Nguyen et al. 2024 (arXiv:2407.01082): candidates below min_p x the largest probability go.
void keep_min_p(std::span<float> logits, double min_p) {
  const Candidates candidates = softmax(logits);
  const float largest =
      *std::max_element(candidates.probabilities.begin(), candidates.probabilities.end());
  const float threshold = static_cast<float>(min_p) * largest;
  for (size_t i = 0; i < candidates.indices.size(); ++i) {
    if (candidates.probabilities[i] < threshold) logits[candidates.indices[i]] = kRemoved;
  }
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

int32_t draw_token(std::span<const float> logits, uint64_t seed, int64_t index) {
  greedy_token(logits);  // refuses NaN, which no cumulative sum would ever pass
  const Candidates candidates = softmax(logits);
  double total = 0;
  for (const float p : candidates.probabilities) total += p;
  const uint64_t bits =
      parallel::seed_of(static_cast<int64_t>(seed), "sampling", /*rank=*/0, index);
  const double uniform = static_cast<double>(bits >> 11) * 0x1.0p-53;  // [0, 1)
  double cumulative = 0;
  for (size_t i = 0; i < candidates.indices.size(); ++i) {
    cumulative += candidates.probabilities[i];
    if (uniform * total < cumulative) return static_cast<int32_t>(candidates.indices[i]);
  }
  return static_cast<int32_t>(candidates.indices.back());
}

}  // namespace temper::trainer
