#include "trainer/evaluate.h"

#include <ATen/core/grad_mode.h>

#include <chrono>
#include <utility>

#include "data/loader/eval_loader.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/rollouts/rollouts.h"
#include "trainer/step.h"

namespace temper::trainer {

MetricLine evaluate(Run& run) {
  if (dynamic_cast<const RolloutObjective*>(run.objective.get()) != nullptr) {
    auto* training = dynamic_cast<Rollouts*>(run.source.get());
    return training != nullptr ? training->evaluate() : Rollouts(run).evaluate();
  }
  const auto start = std::chrono::steady_clock::now();
  const at::NoGradGuard no_grad;
  StepSums sums = zero_sums(*run.objective);
  data::EvalLoader loader(run.datasets.eval, run.loader_options);
  for (int64_t round = 0; round < loader.rounds(); ++round) {
    data::StepBatches own;
    if (data::Batch batch; loader.next(batch)) own.micro_batches.push_back(std::move(batch));
    prepare(run, own, 0);
    for (const data::Batch& batch : own.micro_batches) {
      add_terms(sums, run.objective->loss(*run.model, batch));
      sums.input_tokens += static_cast<double>(batch.input_tokens);
    }
  }
  exchange(sums, *run.communicator);

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
