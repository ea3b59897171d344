#include <cstdio>
#include <optional>
#include <string>
#include <vector>

#include "data/loader/loader.h"
#include "launch/command.h"
#include "launch/recipe_arguments.h"
#include "launch/startup.h"
#include "launch/time_report.h"
#include "parallel/device.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/export.h"
#include "trainer/memory_plan.h"
#include "trainer/models/model.h"
#include "trainer/run.h"
#include "trainer/run_directory.h"

namespace temper::launch {

namespace {

std::string mib(int64_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

data::Json to_json(const trainer::Run& run, const trainer::MemoryPlan& plan, const Prediction& prediction, int world) {
  data::Json memory = {{"weights", plan.weights},
                       {"gradients", plan.gradients},
                       {"optimizer", plan.optimizer},
                       {"activations", plan.activations}};
  if (plan.rewards > 0) memory["rewards"] = plan.rewards;
  if (plan.rollouts > 0) memory["rollouts"] = plan.rollouts;
  memory["buffers"] = plan.buffers;
  memory["total"] = plan.total();
  if (plan.offloaded > 0) {
    memory["on_host"] = plan.offloaded;
    memory["on_device"] = plan.on_device();
  }
  return {{"model", {{"architecture", run.inputs.config.architecture}, {"parameters", plan.parameters}}},
          {"world", world},
          {"rows", run.datasets.train_rows},
          {"sequences", run.sequences},
          {"steps_per_epoch", run.steps_per_epoch},
          {"steps", run.total_steps},
          {"tokens_per_step", tokens_of_step(run)},
          {"time", time_json(run, prediction)},
          {"memory", memory},
          {"disk", {{"checkpoint", plan.checkpoint_bytes}, {"export", plan.export_bytes}}}};
}

void print(const trainer::Run& run, const trainer::MemoryPlan& plan, const Prediction& prediction, int world) {
  for (const std::string& line : run.datasets.statements) std::printf("%s\n", line.c_str());
  const data::Json json = to_json(run, plan, prediction, world);
  std::printf("\nmodel      %s, %.2fM parameters\n", run.inputs.config.architecture.c_str(),
              static_cast<double>(plan.parameters) / 1e6);
  std::printf("steps      %lld of %lld sequences, about %lld tokens each; %lld steps an epoch\n",
              static_cast<long long>(run.total_steps), static_cast<long long>(run.recipe.batch.global),
              static_cast<long long>(json["tokens_per_step"].get<int64_t>()), static_cast<long long>(run.steps_per_epoch));
  print_time(run, prediction);
  std::printf("\nmemory of each of %d rank%s\n", world, world == 1 ? "" : "s");
  for (const auto& [name, bytes] : json["memory"].items()) {
    std::printf("  %-12s %14s\n", name.c_str(), mib(bytes.get<int64_t>()).c_str());
  }
  const int64_t keep = run.recipe.checkpoint.keep + 1;
  std::printf("\ndisk\n  %lld checkpoints %12s\n  export       %14s\n", static_cast<long long>(keep),
              mib(keep * plan.checkpoint_bytes).c_str(), mib(plan.export_bytes).c_str());
}

}  // namespace

int plan(const std::vector<std::string>& arguments) {
  ArgumentParser parser("temper plan RECIPE [key=value ...] [options]",
                        "Checks everything that can be checked without training; prints memory, disk, rows, steps and time",
                        "temper plan configs/quickstart.toml --world 8 --device-memory 24GiB");
  add_recipe_arguments(parser);
  parser.options().add_options()("world", po::value<int>()->default_value(1), "ranks to plan for")(
      "device-memory", po::value<std::string>(), "exit 2 unless a rank fits into it (24GiB)")(
      "device", po::value<std::string>(), "predict time for it, and exit 2 unless a rank fits into it (h100-sxm); else for this machine")(
      "json", "one JSON object");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;

  const int world = (*given)["world"].as<int>();
  if (world < 1) throw UserError("temper plan: --world " + std::to_string(world) + ": must be at least 1");
  std::optional<PlannedDevice> named;
  if (given->count("device")) named = device_named((*given)["device"].as<std::string>());
  const recipes::Recipe seen = peek_recipe(*given);
  if (!named) parallel::load_plugin_early(seen.train.device);
  return run_on_all_ranks([&](parallel::Session& session) {
    recipes::Recipe recipe = read_recipe(*given, {.purpose = recipes::Purpose::kTrain, .world_size = world});
    if (named) recipe.train.device = recipes::Device::kCuda;
    session.use_threads(static_cast<int>(recipe.train.threads.value_or(0)));
    trainer::Inputs inputs = trainer::read_inputs(recipe);
    trainer::Datasets datasets = trainer::prepare_datasets(recipe, inputs, session.world());
    parallel::World planned = session.world();
    planned.size = world;
    const trainer::Run run = trainer::assemble(recipe, std::move(inputs), std::move(datasets), planned);
    const trainer::MemoryPlan plan = trainer::plan_memory(recipe, run.inputs.config, world);
    if (session.world().rank == 0) {
      const Prediction prediction = predict_time(run, plan, named ? *named : device_here(recipe.train.device, planned));
      if (given->count("json")) {
        std::printf("%s\n", to_json(run, plan, prediction, world).dump(2).c_str());
      } else {
        print(run, plan, prediction, world);
      }
    }
    std::string limit = named ? named->memory : "";
    if (given->count("device-memory")) limit = (*given)["device-memory"].as<std::string>();
    if (limit.empty()) return int{kDone};
    if (plan.on_device() > trainer::parse_size(limit)) {
      throw UserError("plan: " + mib(plan.on_device()) + " a rank do not fit into " + limit + ": " +
                      trainer::memory_advice(recipe, run.inputs.config, world, trainer::parse_size(limit)));
    }
    return int{kDone};
  }, seen.parallel.rendezvous);
}

}  // namespace temper::launch
