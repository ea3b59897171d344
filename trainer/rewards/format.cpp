#include <cmath>
#include <memory>
#include <string>
#include <string_view>

#include "recipes/diagnostic.h"
#include "trainer/rewards/direct_reward.h"
#include "trainer/rewards/pattern.h"
#include "trainer/rewards/registry.h"

namespace temper::trainer {
namespace {

/// TRL's think_format_reward: the completion begins with <think>, there is no second <think>, and a
/// </think> follows. What comes after that is free.
class ThinkFormat final : public DirectReward {
 private:
  Score score(const Completed& completed) const override {
    constexpr std::string_view kOpen = "<think>", kClose = "</think>";
    const std::string_view text = completed.completion;
    const bool right = text.starts_with(kOpen) &&
                       text.find(kOpen, kOpen.size()) == std::string_view::npos &&
                       text.find(kClose, kOpen.size()) != std::string_view::npos;
    return {right ? 1.0 : 0.0, ""};
  }
};

class PatternReward final : public DirectReward {
 public:
  PatternReward(Pattern pattern, bool whole) : pattern_(std::move(pattern)), whole_(whole) {}

 private:
  Score score(const Completed& completed) const override {
    switch (whole_ ? pattern_.whole(completed.completion)
                   : pattern_.somewhere_in(completed.completion)) {
      case Pattern::Found::kYes:
        return {1.0, ""};
      case Pattern::Found::kNo:
        return {0.0, ""};
      case Pattern::Found::kGaveUp:
        break;
    }
    return {std::nan(""), "the regular expression backtracks without end on a completion of " +
                              std::to_string(completed.completion.size()) + " bytes"};
  }

  Pattern pattern_;
  bool whole_;
};

}  // namespace

std::unique_ptr<Reward> build_format(const recipes::Reward& reward, int64_t, at::Device) {
  const std::string pattern = reward.pattern.value_or("think");
  if (pattern == "think") return std::make_unique<ThinkFormat>();
  return std::make_unique<PatternReward>(
      Pattern(pattern, key_of(reward, "pattern"), Pattern::Dot::kAll), true);
}

std::unique_ptr<Reward> build_regex(const recipes::Reward& reward, int64_t, at::Device) {
  if (!reward.pattern || reward.pattern->empty()) {
    throw UserError(key_of(reward, "pattern") +
                    ": missing; a regular expression that is searched in the completion");
  }
  return std::make_unique<PatternReward>(Pattern(*reward.pattern, key_of(reward, "pattern")),
                                         false);
}

}  // namespace temper::trainer
