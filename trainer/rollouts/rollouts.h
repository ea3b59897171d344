#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "trainer/generation/engine.h"
#include "trainer/metrics/meter.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/rewards/reward.h"
#include "trainer/rollouts/generation_batch.h"
#include "trainer/rollouts/plan.h"
#include "trainer/step_source.h"

/// Rollouts: the model answers the data set's prompts, rewards score the answers, and an objective
/// learns from them.
///
///     prompts of the loader -> sample() -> rewards, while others are still sampled -> gather over
///     ranks
///       -> advantages -> micro-batches
///
/// Draws are functions of (run.seed, generation batch, prompt's place, sample): a run that is
/// resumed, or has another number of ranks, samples the same from the same weights.
namespace temper::trainer {

struct NamedReward {
  std::string name;
  double weight = 1;
  std::unique_ptr<Reward> reward;
};

/// Throws UserError when the longest prompt and objective.max_completion_length do not fit into the
/// model's context.
void check_rollouts(const Run& run);

class Rollouts : public StepSource {
 public:
  /// `run` needs model and communicator and must outlive this. Throws UserError.
  explicit Rollouts(Run& run);
  data::StepBatches next(int64_t step) override;
  void finished(StepSums& sums) override;
  bool write_samples(const RunDirectory& directory, int64_t step) override;
  data::Json state() const override;
  NamedTensors tensors() const override;
  void restore(const data::Json& state, const NamedTensors& tensors) override;
  /// Answers to all of data.eval: the mean rewards, and the objective's loss and metrics.
  MetricLine evaluate();

 private:
  struct Prompt;
  void generate(int64_t step);
  std::vector<Prompt> prompts_of(int64_t batch) const;
  SampledGroups sample_and_score(const std::vector<Prompt>& prompts);
  void resample(SampledGroups& groups, int64_t batch);
  void leave_out(SampledGroups& groups) const;
  void add_log_probs(SampledGroups& groups, bool old);
  Advantages score(SampledGroups& groups) const;
  std::vector<MetricSum> metrics_of(const SampledGroups& groups,
                                    const Advantages& advantages) const;
  Scores scores_of(const SampledGroups& groups) const;
  void warn_of_errors();
  void watch_variance(double zero_std_share);

  Run& run_;
  RolloutObjective& objective_;
  RolloutPlan plan_;
  CompletionLayout layout_;
  SamplingSettings settings_;
  std::vector<NamedReward> rewards_;
  int64_t reported_errors_ = 0;
  int64_t batches_without_variance_ = 0;

  // The generation batch, all of it on every rank; its number, -1: none yet.
  SampledGroups groups_;
  int64_t batch_ = -1;
  std::vector<MetricSum> pending_;  // of a generation batch that has just been made

  // Adaptive entropy control (He et al. 2025, arXiv:2505.22312).
  double entropy_coef_ = 0;
  double last_entropy_;
};

}  // namespace temper::trainer
