#include <optional>

#include "launch/command.h"
#include "launch/environment.h"
#include "launch/recipe_arguments.h"
#include "launch/signals.h"
#include "launch/startup.h"
#include "parallel/log.h"
#include "recipes/diagnostic.h"
#include "trainer/loop.h"
#include "trainer/memory_plan.h"
#include "trainer/run.h"
#include "trainer/run_directory.h"

namespace temper::launch {

int train(const std::vector<std::string>& arguments) {
  ArgumentParser parser("temper train RECIPE [key=value ...]", "Runs a recipe: trains, checkpoints, exports; resumes by itself",
                        "mpirun -n 2 temper train configs/quickstart.toml train.steps=20");
  add_recipe_arguments(parser);
  const auto given = parser.parse(arguments);
  if (!given) return kDone;

  install_signal_handlers();
  parallel::Session session = start_session();
  return together(session, [&](Phases& phase) {
    recipes::Recipe recipe;
    std::optional<trainer::Inputs> inputs;
    phase([&] {
      recipe = read_recipe(*given, {.world_size = session.world().size, .trains = true});
      session.use_threads(static_cast<int>(recipe.train.threads.value_or(0)));
      inputs.emplace(trainer::read_inputs(recipe));
    });
    trainer::Datasets datasets;
    phase([&] { datasets = trainer::prepare_datasets(recipe, *inputs, session.world()); });
    for (const std::string& line : datasets.statements) parallel::say(line);

    trainer::Run run;
    trainer::RunDirectory directory;
    phase([&] {
      run = trainer::assemble(recipe, std::move(*inputs), std::move(datasets), session.world());
      directory = trainer::look_at_run_directory(recipe, run.total_steps);
    });
    if (directory.finished) {
      parallel::say(directory.path.string() + " is finished: nothing to do (more train.steps or train.epochs continue it)");
      return int{kDone};
    }
    phase([&] {
      trainer::fill_model(run);
      if (session.world().rank == 0) {
        const trainer::MemoryPlan plan = trainer::plan_memory(recipe, run.inputs.config, session.world().size);
        trainer::open_run_directory(directory, recipe, environment(session.world()), plan.checkpoint_bytes,
                                    plan.export_bytes);
      }
    });
    check_every_host_sees(session, directory.path);
    check_every_host_sees(session, recipe.data.cache);
    write_log_to(session.world(), directory.path / "log.txt");
    for (const std::string& line : directory.statements) parallel::say(line);

    run.communicator = session.communicator(recipe.parallel.timeout);
    trainer::prepare_training(run);
    const trainer::Outcome outcome = trainer::train(run, directory, [] { return stop_signal(); });
    switch (outcome.ending) {
      case trainer::Ending::kFinished:
        return int{kDone};
      case trainer::Ending::kStopped:
        parallel::say(outcome.message);
        return int{kStoppedEarly};
      case trainer::Ending::kFailed:
        if (session.world().rank == 0) parallel::warn("error: " + outcome.message);
        return int{kFailed};
    }
    return int{kFailed};
  });
}

}  // namespace temper::launch
