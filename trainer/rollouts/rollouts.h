#pragma once

#include <cstdint>
#include <vector>

#include "trainer/metrics/meter.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/rollouts/generation_batch.h"
#include "trainer/rollouts/plan.h"
#include "trainer/rollouts/sampler.h"
#include "trainer/step_source.h"

/// Rollouts: the model answers the data set's prompts, rewards score the answers, and an objective
/// learns from them.
///
///     prompts of the loader -> Sampler -> gather over ranks -> the objective's judge()
///       -> micro-batches
///
/// Draws are functions of (run.seed, generation batch, prompt's place, sample): a run that is
/// resumed, or has another number of ranks, samples the same from the same weights.
namespace temper::trainer {

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
  void generate(int64_t step);
  std::vector<Prompt> prompts_of(int64_t batch) const;
  void resample(SampledGroups& groups, int64_t batch);
  void leave_out(SampledGroups& groups) const;
  void add_log_probs(SampledGroups& groups, bool old);
  /// Rewards and what the objective makes of them, written into all ranks' groups; and metrics.
  std::vector<MetricSum> judge(SampledGroups& groups);
  void watch_variance();

  Run& run_;
  RolloutObjective& objective_;
  RolloutPlan plan_;
  Sampler sampler_;
  CompletionLayout layout_;
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
