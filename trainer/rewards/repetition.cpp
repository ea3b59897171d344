#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "recipes/diagnostic.h"
#include "trainer/rewards/direct_reward.h"
#include "trainer/rewards/registry.h"

namespace temper::trainer {
namespace {

/// (1 - unique n-grams / n-grams) * max_penalty over token ids (Yeo et al. 2025, arXiv:2502.03373,
/// C.2); 0 for completions shorter than n.
class Repetition final : public DirectReward {
 public:
  Repetition(int64_t ngram, double max_penalty) : ngram_(ngram), max_penalty_(max_penalty) {}

 private:
  Score score(const Completed& completed) const override {
    const std::vector<int32_t>& ids = completed.completion_ids;
    const auto length = static_cast<int64_t>(ids.size());
    if (length < ngram_) return {0.0, ""};
    // Starts of the n-grams, sorted by what they begin: equal ones stand side by side.
    std::vector<int64_t> starts(length - ngram_ + 1);
    std::iota(starts.begin(), starts.end(), 0);
    const auto gram = [&](int64_t start) { return ids.begin() + start; };
    std::sort(starts.begin(), starts.end(), [&](int64_t a, int64_t b) {
      return std::lexicographical_compare(gram(a), gram(a) + ngram_, gram(b), gram(b) + ngram_);
    });
    const auto last = std::unique(starts.begin(), starts.end(), [&](int64_t a, int64_t b) {
      return std::equal(gram(a), gram(a) + ngram_, gram(b));
    });
    const auto unique = static_cast<double>(last - starts.begin());
    const double repeated = 1.0 - unique / static_cast<double>(starts.size());
    return {repeated == 0.0 ? 0.0 : repeated * max_penalty_, ""};
  }

  int64_t ngram_;
  double max_penalty_;
};

}  // namespace

std::unique_ptr<Reward> build_repetition(const recipes::Reward& reward, int64_t, at::Device) {
  const int64_t ngram = reward.ngram.value_or(3);
  if (ngram < 1) {
    throw UserError(key_of(reward, "ngram") + " = " + std::to_string(ngram) +
                    ": must be at least 1 token");
  }
  const double max_penalty = reward.max_penalty.value_or(-1.0);
  if (!(max_penalty <= 0) || std::isinf(max_penalty)) {
    throw UserError(key_of(reward, "max_penalty") + " = " + std::to_string(max_penalty) +
                    ": must be 0 or below (typical: -1)");
  }
  return std::make_unique<Repetition>(ngram, max_penalty);
}

}  // namespace temper::trainer
