#include <cstdio>
#include <optional>

#include "data/loader/loader.h"
#include "launch/command.h"
#include "launch/recipe_arguments.h"
#include "launch/startup.h"
#include "recipes/diagnostic.h"
#include "trainer/checkpoint/export.h"
#include "trainer/memory_plan.h"
#include "trainer/metrics/device_peak.h"
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

// A step's model FLOPs at the product rate that doctor measured here with as many threads: what is no product comes on top.
// Unset where doctor has not been.
std::optional<double> step_seconds(const trainer::Run& run, int64_t tokens, int world) {
  const bool bf16 = run.recipe.train.precision == recipes::Dtype::kBf16;
  const auto peak = trainer::stored_peak_flops(run.world.threads, bf16);
  if (!peak) return std::nullopt;
  const double a_token = trainer::training_flops_per_token(
      run.inputs.config, run.mean_attended_length, run.adapters != nullptr);
  return a_token * static_cast<double>(tokens) / (*peak * world);
}

data::Json to_json(const trainer::Run& run, const trainer::MemoryPlan& plan, int world) {
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
  const int64_t tokens = run.datasets.train_tokens * run.recipe.batch.global / run.sequences;
  data::Json time;
  if (const auto seconds = step_seconds(run, tokens, world)) {
    time = {{"step_seconds_at_least", *seconds}, {"run_seconds_at_least", *seconds * static_cast<double>(run.total_steps)}};
  }
  return {{"model", {{"architecture", run.inputs.config.architecture}, {"parameters", plan.parameters}}},
          {"world", world},
          {"rows", run.datasets.train_rows},
          {"sequences", run.sequences},
          {"steps_per_epoch", run.steps_per_epoch},
          {"steps", run.total_steps},
          {"tokens_per_step", tokens},
          {"time", time},
          {"memory", memory},
          {"disk", {{"checkpoint", plan.checkpoint_bytes}, {"export", plan.export_bytes}}}};
}

void print(const trainer::Run& run, const trainer::MemoryPlan& plan, int world) {
  for (const std::string& line : run.datasets.statements) std::printf("%s\n", line.c_str());
  const data::Json json = to_json(run, plan, world);
  std::printf("\nmodel      %s, %.2fM parameters\n", run.inputs.config.architecture.c_str(),
              static_cast<double>(plan.parameters) / 1e6);
  std::printf("steps      %lld of %lld sequences, about %lld tokens each; %lld steps an epoch\n",
              static_cast<long long>(run.total_steps), static_cast<long long>(run.recipe.batch.global),
              static_cast<long long>(json["tokens_per_step"].get<int64_t>()), static_cast<long long>(run.steps_per_epoch));
  if (const data::Json& time = json["time"]; !time.is_null()) {
    std::printf("time       at least %.3g s a step, %.3g min in all: the products alone, at the rate that temper doctor measured here\n",
                time["step_seconds_at_least"].get<double>(), time["run_seconds_at_least"].get<double>() / 60);
  } else {
    std::printf("time       unknown: temper doctor measures the rate of this machine\n");
  }
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
                        "Checks everything that can be checked without training; prints memory, disk, rows and steps",
                        "temper plan configs/quickstart.toml --world 8 --device-memory 24GiB");
  add_recipe_arguments(parser);
  parser.options().add_options()("world", po::value<int>()->default_value(1), "ranks to plan for")(
      "device-memory", po::value<std::string>(), "exit 2 unless a rank fits into it (24GiB)")("json", "one JSON object");
  const auto given = parser.parse(arguments);
  if (!given) return kDone;

  const int world = (*given)["world"].as<int>();
  if (world < 1) throw UserError("temper plan: --world " + std::to_string(world) + ": must be at least 1");
  return run_on_all_ranks([&](parallel::Session& session) {
    recipes::Recipe recipe = read_recipe(*given, {.purpose = recipes::Purpose::kTrain, .world_size = world});
    session.use_threads(static_cast<int>(recipe.train.threads.value_or(0)));
    trainer::Inputs inputs = trainer::read_inputs(recipe);
    trainer::Datasets datasets = trainer::prepare_datasets(recipe, inputs, session.world());
    parallel::World planned = session.world();
    planned.size = world;
    const trainer::Run run = trainer::assemble(recipe, std::move(inputs), std::move(datasets), planned);
    const trainer::MemoryPlan plan = trainer::plan_memory(recipe, run.inputs.config, world);
    if (session.world().rank == 0) {
      if (given->count("json")) {
        std::printf("%s\n", to_json(run, plan, world).dump(2).c_str());
      } else {
        print(run, plan, world);
      }
    }
    if (!given->count("device-memory")) return int{kDone};
    const std::string limit = (*given)["device-memory"].as<std::string>();
    if (plan.on_device() > trainer::parse_size(limit)) {
      throw UserError("plan: " + mib(plan.on_device()) + " a rank do not fit into " + limit + ": " +
                      trainer::memory_advice(recipe, run.inputs.config, world, trainer::parse_size(limit)));
    }
    return int{kDone};
  }, peek_recipe(*given).parallel.rendezvous);
}

}  // namespace temper::launch
