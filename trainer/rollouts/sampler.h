#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trainer/generation/engine.h"
#include "trainer/objectives/advantages.h"
#include "trainer/rewards/reward.h"
#include "trainer/rollouts/generation_batch.h"

/// Answers to prompts, scored.
namespace temper::trainer {

struct Run;

/// A prompt to answer: where it stands in its generation batch, and the name of its draws.
struct Prompt {
  int32_t slice = 0, place = 0;
  std::vector<int32_t> ids;
  std::string columns;  // the row's others, as JSON: what rewards see; "": none
  uint64_t seed = 0;
};

/// Throws UserError when the longest prompt and objective.max_completion_length do not fit into the
/// model's context.
void check_rollouts(const Run& run);

class Sampler {
 public:
  /// `group`: completions of a prompt. Settings and rewards are the recipe's; `run` must outlive
  /// this. Throws UserError.
  Sampler(const Run& run, int64_t group);

  /// What `model` answers: a group a prompt, in that order, with a score from each reward; rewards
  /// work while others are still being sampled.
  SampledGroups sample(Model& model, const std::vector<Prompt>& prompts) const;

  /// The scores of all completions, in order.
  Scores scores_of(const SampledGroups& groups) const;
  std::vector<std::string> reward_names() const;
  double temperature() const { return settings_.temperature; }
  /// Says once how many completions had no score since the last call.
  void warn_of_errors();

 private:
  struct NamedReward {
    std::string name;
    double weight = 1;
    std::unique_ptr<Reward> reward;
  };

  const Run& run_;
  int64_t group_;
  SamplingSettings settings_;
  std::vector<NamedReward> rewards_;
  int64_t reported_errors_ = 0;
};

}  // namespace temper::trainer
