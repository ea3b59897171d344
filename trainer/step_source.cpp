#include "trainer/step_source.h"

#include "recipes/objective_kinds.h"
#include "trainer/objectives/rollout_objective.h"
#include "trainer/rollouts/answered_rows.h"
#include "trainer/rollouts/rollouts.h"
#include "trainer/run.h"

namespace temper::trainer {
namespace {

class Rows : public StepSource {
 public:
  explicit Rows(Run& run) : run_(run) {}
  data::StepBatches next(int64_t step) override {
    data::StepBatches batches = run_.loader->step(step - 1);
    prepare(run_, batches, step);
    return batches;
  }
  data::Json state() const override { return run_.loader->state(); }
  void restore(const data::Json& state, const NamedTensors& /*tensors*/) override { run_.loader->restore(state); }

 private:
  Run& run_;
};

}  // namespace

std::unique_ptr<StepSource> make_step_source(Run& run) {
  if (dynamic_cast<RolloutObjective*>(run.objective.get()) != nullptr) {
    return std::make_unique<Rollouts>(run);
  }
  if (recipes::samples_completions(run.recipe.objective)) return std::make_unique<AnsweredRows>(run);
  return std::make_unique<Rows>(run);
}

}  // namespace temper::trainer
