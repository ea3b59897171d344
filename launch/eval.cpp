#include <cmath>
#include <cstdio>
#include <filesystem>

#include "launch/command.h"
#include "launch/compute_device.h"
#include "launch/recipe_arguments.h"
#include "launch/startup.h"
#include "parallel/device.h"
#include "parallel/log.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/state.h"
#include "trainer/evaluate.h"
#include "trainer/run.h"

namespace temper::launch {

namespace {

// --checkpoint last | best | DIR
std::filesystem::path chosen_checkpoint(const recipes::Recipe& recipe, const std::string& choice) {
  const std::filesystem::path checkpoints = std::filesystem::path(recipe.run.output) / recipe.run.name / "checkpoints";
  std::filesystem::path directory = choice;
  if (choice == "last") {
    const auto found = trainer::find_checkpoint(checkpoints);
    if (!found) throw UserError("--checkpoint last: no complete checkpoint in " + checkpoints.string());
    return found->directory;
  }
  if (choice == "best") directory = checkpoints / "best";
  if (!std::filesystem::exists(directory)) {
    throw UserError("--checkpoint " + choice + ": " + directory.string() + " does not exist (allowed: last, best, a checkpoint directory)");
  }
  if (const std::string damage = trainer::checkpoint_damage(directory); !damage.empty()) throw UserError("damaged checkpoint: " + damage);
  return directory;
}

void load_weights_from(trainer::Run& run, const std::filesystem::path& checkpoint) {
  trainer::NamedTensors weights;
  for (const trainer::Parameter& parameter : run.model->parameters()) {
    if (run.adapters && !parameter.trainable()) continue;
    weights.emplace_back("weights/" + parameter.name, parameter.master);
  }
  trainer::load_checkpoint(checkpoint, weights);
  trainer::refresh_values(*run.model);
}

}  // namespace

int eval(const std::vector<std::string>& arguments) {
  ArgumentParser parser("temper eval RECIPE [key=value ...] [options]",
                        "Evaluates on [[data.eval]]; the last line is one JSON object; writes no run directory",
                        "temper eval configs/quickstart.toml --checkpoint last");
  add_recipe_arguments(parser);
  parser.options().add_options()("checkpoint", po::value<std::string>(), "last | best | DIR: the run's weights, not model.path's");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;

  const recipes::Recipe seen = peek_recipe(*given);
  parallel::load_plugin_early(seen.train.device);
  return run_on_all_ranks([&](parallel::Session& session) {
    recipes::Recipe recipe = read_recipe(*given, {.purpose = recipes::Purpose::kEval, .world_size = session.world().size});
    session.set_timeout(recipe.parallel.timeout);
    const ComputeDevice compute =
        open_device(session, recipe.train.device, recipe.run.deterministic != recipes::Deterministic::kFalse);
    session.use_threads(static_cast<int>(recipe.train.threads.value_or(0)));
    recipe.data.train.clear();  // only [[data.eval]] is read

    trainer::Inputs inputs = trainer::read_inputs(recipe);
    trainer::Datasets datasets = trainer::prepare_datasets(recipe, inputs, session.world());
    trainer::Run run = trainer::assemble(std::move(recipe), std::move(inputs), std::move(datasets), session.world(), compute.device);
    if (given->count("checkpoint")) {
      const std::filesystem::path checkpoint =
          chosen_checkpoint(run.recipe, (*given)["checkpoint"].as<std::string>());
      trainer::fill_model(run, checkpoint);
      load_weights_from(run, checkpoint);
    } else {
      trainer::fill_model(run);
    }
    run.communicator = open_communicator(session, run.recipe.parallel.timeout, compute.device);
    if (!compute.statement.empty()) parallel::say(compute.statement);
    for (const std::string& line : run.datasets.statements) parallel::say(line);

    data::Json line;
    for (const auto& [name, value] : trainer::evaluate(run)) {
      // Counts are written as counts, as in metrics.jsonl.
      line[name] = std::nearbyint(value) == value ? data::Json(static_cast<int64_t>(value)) : data::Json(value);
    }
    if (session.world().rank == 0) std::printf("%s\n", line.dump().c_str());
    return int{kDone};
  }, seen.parallel.rendezvous);
}

}  // namespace temper::launch
