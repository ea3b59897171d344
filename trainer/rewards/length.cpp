#include <algorithm>
#include <memory>
#include <string>

#include "recipes/diagnostic.h"
#include "trainer/rewards/direct_reward.h"
#include "trainer/rewards/registry.h"

namespace temper::trainer {
namespace {

/// Soft overlong punishment (Yu et al. 2025, arXiv:2503.14476, eq. 13), |y| in tokens:
///     0                            |y| <= max - soft
///     ((max - soft) - |y|) / soft  max - soft < |y| <= max
///     -1                           max < |y|
class Length final : public DirectReward {
 public:
  Length(int64_t max, int64_t soft) : max_(max), soft_(soft) {}

 private:
  Score score(const Completed& completed) const override {
    const auto length = static_cast<int64_t>(completed.completion_ids.size());
    if (length <= max_ - soft_) return {0.0, ""};
    if (length > max_) return {-1.0, ""};
    return {static_cast<double>(max_ - soft_ - length) / static_cast<double>(soft_), ""};
  }

  int64_t max_, soft_;
};

}  // namespace

std::unique_ptr<Reward> build_length(const recipes::Reward& reward, int64_t max_completion_length,
                                     at::Device) {
  const int64_t max = reward.max.value_or(max_completion_length);
  if (max < 1) {
    throw UserError(key_of(reward, "max") + " = " + std::to_string(max) +
                    ": must be at least 1 token");
  }
  // The paper punishes over the last fifth: 4096 of 20480 tokens.
  const int64_t soft = reward.soft.value_or(std::max<int64_t>(1, max / 5));
  if (soft < 0 || soft > max) {
    throw UserError(key_of(reward, "soft") + " = " + std::to_string(soft) +
                    ": must be from 0 to max = " + std::to_string(max) +
                    ", the tokens before max over which the penalty grows");
  }
  return std::make_unique<Length>(max, soft);
}

}  // namespace temper::trainer
