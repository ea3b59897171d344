#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "trainer/objectives/objective.h"
#include "trainer/rollouts/generation_batch.h"
#include "trainer/rollouts/sampler.h"
#include "trainer/step_source.h"

/// Rows whose completions are sampled anew in each step, for gkd and distill: a share objective.lmbda
/// of them by the student as it is then, with objective.seq_kd all others by the teacher; the rest
/// stand as they are.
///
///     rows of the loader -> a draw each: who answers? -> sample() -> rows again -> micro-batches
///
/// Draws are functions of (run.seed, step, the row's place in it), each rank answers its own rows, and
/// nothing is kept from step to step: so a resumed run goes on with the same bits.
namespace temper::trainer {

/// Who answers a row.
struct Asked {
  Model* model = nullptr;  // null: nobody, the row stands as it is
  int32_t place = 0;
  uint64_t seed = 0;
};

/// Of the row `index` (in order) of `batches`.
using AskWhom = std::function<Asked(const data::Batch& batch, size_t row, int64_t index)>;

class RowAnswers {
 public:
  /// `run` needs model and reference and must outlive this.
  explicit RowAnswers(Run& run);
  /// The batches with the completions of the asked models; returns what was sampled.
  SampledGroups answer(data::StepBatches& batches, const AskWhom& whom) const;

 private:
  Run& run_;
  Sampler sampler_;
};

class AnsweredRows : public StepSource {
 public:
  explicit AnsweredRows(Run& run) : run_(run), answers_(run) {}
  data::StepBatches next(int64_t step) override;
  void finished(StepSums& sums) override;
  bool write_samples(const RunDirectory& directory, int64_t step) override;

 private:
  Run& run_;
  RowAnswers answers_;
  SampledGroups groups_;  // of the step, of all ranks
};

/// In evaluations: rows that have no completion are answered by the student, with the same draws each
/// time.
class PromptAnswers {
 public:
  explicit PromptAnswers(Run& run) : run_(run), answers_(run) {}
  void fill(data::StepBatches& batches);
  /// The lengths of all answers so far. Collective.
  std::vector<MetricSum> metrics() const;

 private:
  Run& run_;
  RowAnswers answers_;
  SampledGroups groups_;  // of this rank
};

}  // namespace temper::trainer
