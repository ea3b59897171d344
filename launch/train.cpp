#include <memory>

#include "launch/command.h"
#include "launch/compute_device.h"
#include "launch/environment.h"
#include "launch/recipe_arguments.h"
#include "launch/signals.h"
#include "launch/startup.h"
#include "parallel/device.h"
#include "parallel/log.h"
#include "trainer/loop.h"
#include "trainer/memory_plan.h"
#include "trainer/run.h"
#include "trainer/run_directory.h"

namespace temper::launch {

namespace {

int run_recipe(parallel::Session& session, const po::variables_map& given) {
  recipes::Recipe recipe = read_recipe(given, {.purpose = recipes::Purpose::kTrain, .world_size = session.world().size});
  session.set_timeout(recipe.parallel.timeout);
  const ComputeDevice compute =
      open_device(session, recipe.train.device, recipe.run.deterministic != recipes::Deterministic::kFalse);
  session.use_threads(static_cast<int>(recipe.train.threads.value_or(0)));
  const parallel::World& world = session.world();

  trainer::Inputs inputs = trainer::read_inputs(recipe);
  check_every_host_sees(session, recipe.data.cache);
  trainer::Datasets datasets = trainer::prepare_datasets(recipe, inputs, world);
  trainer::Run run = trainer::assemble(std::move(recipe), std::move(inputs), std::move(datasets), world, compute.device);
  trainer::RunDirectory directory = trainer::look_at_run_directory(run.recipe, run.total_steps);
  check_every_host_finds(session, directory.path, directory.finished ? "finished" : std::to_string(directory.resume_step));
  if (directory.finished) {
    parallel::say(directory.path.string() + " is finished: nothing to do (more train.steps or train.epochs continue it)");
    return kDone;
  }
  run.communicator = open_communicator(session, run.recipe.parallel.timeout, compute.device);
  trainer::make_mesh(run);
  trainer::fill_model(run, directory.checkpoint);
  trainer::prepare_training(run);

  // Nothing is written before all ranks have come this far.
  if (world.rank == 0) {
    const trainer::MemoryPlan plan = trainer::plan_memory(run.recipe, run.inputs.config, world.size);
    trainer::open_run_directory(directory, run.recipe, environment(world), plan.checkpoint_bytes, plan.export_bytes);
  }
  session.broadcast_text("opened");
  check_every_host_sees(session, directory.path);
  write_log_to(world, directory.path / "log.txt");
  if (!compute.statement.empty()) parallel::say(compute.statement);
  for (const std::string& line : run.datasets.statements) parallel::say(line);
  for (const std::string& line : directory.statements) parallel::say(line);
  if (run.adapters) parallel::say(run.adapters->statement());
  if (run.recipe.parallel.offload == recipes::Offload::kOptimizer) {
    parallel::say(run.device.is_cpu() ? "parallel.offload: optimizer states are in host memory as it is, for the CPU computes"
                                      : "parallel.offload: optimizer states are in host memory, and the CPU updates the weights");
  }

  const trainer::Outcome outcome = trainer::train(run, directory, [] { return stop_signal(); });
  switch (outcome.ending) {
    case trainer::Ending::kFinished:
      return kDone;
    case trainer::Ending::kStopped:
      parallel::say(outcome.message);
      return kStoppedEarly;
    case trainer::Ending::kFailed:
      if (world.rank == 0) parallel::warn("error: " + outcome.message);
      return kFailed;
  }
  return kFailed;
}

}  // namespace

int train(const std::vector<std::string>& arguments) {
  ArgumentParser parser("temper train RECIPE [key=value ...]", "Runs a recipe: trains, checkpoints, exports; resumes by itself",
                        "mpirun -n 2 temper train configs/quickstart.toml train.steps=20");
  add_recipe_arguments(parser);
  const auto given = parser.parse(arguments);
  if (!given) return kDone;
  install_signal_handlers();
  const recipes::Recipe seen = peek_recipe(*given);
  parallel::load_plugin_early(seen.train.device);
  return run_on_all_ranks([&](parallel::Session& session) { return run_recipe(session, *given); }, seen.parallel.rendezvous);
}

}  // namespace temper::launch
