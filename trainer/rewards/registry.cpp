#include "trainer/rewards/registry.h"

#include <string>
#include <vector>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

constexpr RewardRow kRewards[] = {
    {"accuracy", build_accuracy,
     "1 when the final answer has the value of the row's answer, else 0.", "arXiv:2402.03300"},
    {"format", build_format, "1 when the whole completion has the form of a pattern, else 0.",
     "arXiv:2501.12948"},
    {"regex", build_regex, "1 when a regular expression is found in the completion, else 0.", ""},
    {"length", build_length, "0, falling to -1 over the last tokens before the limit.",
     "arXiv:2503.14476 eq. 13"},
    {"repetition", build_repetition, "The share of repeated n-grams times a penalty.",
     "arXiv:2502.03373 C.2"},
    {"program", build_program, "What a program of yours answers for each completion.", ""},
    {"model", build_model_reward, "The score of a reward model.", "arXiv:2203.02155"},
};

}  // namespace

std::span<const RewardRow> rewards() { return kRewards; }

std::unique_ptr<Reward> build_reward(const recipes::Reward& reward, int64_t max_completion_length,
                                     at::Device device) {
  std::vector<std::string> kinds;
  for (const RewardRow& row : kRewards) {
    if (reward.kind == row.kind) return row.build(reward, max_completion_length, device);
    kinds.push_back(row.kind);
  }
  const std::string nearest = nearest_name(reward.kind, kinds);
  throw UserError(key_of(reward, "kind") + " = \"" + reward.kind + "\": not there; allowed: " +
                  join(kinds) + (nearest.empty() ? "" : "; did you mean \"" + nearest + "\"?"));
}

std::string name_of(const recipes::Reward& reward) {
  return reward.name.empty() ? reward.kind : reward.name;
}

std::string key_of(const recipes::Reward& reward, const char* key) {
  return "objective.rewards \"" + name_of(reward) + "\": " + key;
}

}  // namespace temper::trainer
