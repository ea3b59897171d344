#include "trainer/evaluate.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>
#include <vector>

#include "data/loader/eval_loader.h"
#include "recipes/objective_kinds.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/rollouts/answered_rows.h"
#include "trainer/rollouts/rollouts.h"
#include "trainer/step.h"

namespace temper::trainer {
namespace {

constexpr int64_t kAnswered = 64;  // rows of an evaluation

}  // namespace

MetricLine evaluate(Run& run) {
  if (dynamic_cast<const RolloutObjective*>(run.objective.get()) != nullptr) {
    auto* training = dynamic_cast<Rollouts*>(run.source.get());
    return training != nullptr ? training->evaluate() : Rollouts(run).evaluate();
  }
  const auto start = std::chrono::steady_clock::now();
  const at::NoGradGuard no_grad;
  StepSums sums = zero_sums(*run.objective);
  std::vector<LossTerms> terms;
  std::optional<PromptAnswers> answers;
  const bool samples = recipes::samples_completions(run.recipe.objective);
  if (samples) answers.emplace(run);
  const WholeBlocks whole(samples ? run.blocks.get() : nullptr);
  // As many at once as are sampled together.
  const int64_t together = answers ? std::max<int64_t>(1, kAnswered / run.loader_options.micro) : 1;
  data::EvalLoader loader(run.datasets.eval, run.loader_options);
  for (int64_t round = 0; round < loader.rounds(); round += together) {
    data::StepBatches own;
    for (data::Batch batch; std::ssize(own.micro_batches) < together && loader.next(batch);) {
      own.micro_batches.push_back(std::move(batch));
    }
    if (answers) answers->fill(own);
    prepare(run, own, 0);
    for (const data::Batch& batch : own.micro_batches) {
      terms.push_back(run.objective->loss(*run.model, batch));
      sums.input_tokens += static_cast<double>(batch.input_tokens);
    }
  }
  end_passes(*run.model);
  add_terms(sums, terms);
  exchange(sums, *run.communicator);
  if (answers) {
    for (MetricSum& metric : answers->metrics()) sums.metrics.push_back(std::move(metric));
  }

  MetricLine line = {{"eval_loss", sums.loss / sums.count}};
  for (const MetricSum& metric : sums.metrics) {
    if (metric.denominator > 0) line.emplace_back("eval_" + metric.name, metric.numerator / metric.denominator);
  }
  line.emplace_back("eval_num_tokens", sums.input_tokens);
  line.emplace_back("eval_runtime",
                    std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return line;
}

}  // namespace temper::trainer
