#include "launch/time_report.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "data/shards/token_dataset.h"
#include "parallel/device.h"
#include "recipes/diagnostic.h"
#include "trainer/metrics/known_devices.h"

namespace temper::launch {

PlannedDevice device_named(const std::string& name) {
  const trainer::KnownDevice* known = trainer::find_known_device(name);
  const std::string memory =
      known ? std::to_string(static_cast<int64_t>(known->memory_gib)) + "GiB" : "";
  for (const std::string& stored : trainer::measured_devices()) {
    if (known ? trainer::known_device_of(stored) == known : stored == name) {
      return {stored, stored, trainer::stored_rates(stored), true, memory};
    }
  }
  if (known) return {known->name, known->name, trainer::rates_at_best(*known), false, memory};
  std::vector<std::string> names;
  for (const trainer::KnownDevice& device : trainer::known_devices()) names.push_back(device.name);
  throw UserError("temper plan: --device '" + name + "': not known (" + join(names) +
                  ", or what temper doctor has measured)");
}

PlannedDevice device_here(recipes::Device wanted, const parallel::World& world) {
  if (const auto name = parallel::name_of_device(wanted)) {
    if (auto rates = trainer::stored_rates(*name)) return {*name, *name, std::move(rates), true};
    const trainer::KnownDevice* known = trainer::known_device_of(*name);
    return {*name, *name, known ? std::optional(trainer::rates_at_best(*known)) : std::nullopt};
  }
  if (wanted == recipes::Device::kCuda) return {};
  const std::string name = trainer::cpu_name(world.threads);
  return {name, trainer::cpu_model(), trainer::stored_rates(name), true};
}

int64_t tokens_of_step(const trainer::Run& run) {
  return run.datasets.train_tokens * run.recipe.batch.global / run.sequences;
}

namespace {

// Of the mean token, itself included: documents of a row (a pair) see each other's tokens nowhere.
double mean_attended(const trainer::Run& run) {
  const data::TokenDataset* rows = run.datasets.train.get();
  if (!rows || rows->size() == 0) return (run.mean_attended_length + 1) / 2;
  const auto documents = static_cast<double>(rows->row(0).documents.size());
  double tokens = 0, pairs = 0;
  for (int64_t i = 0; i < rows->size(); ++i) {
    const auto length = static_cast<double>(rows->length(i));
    tokens += length;
    pairs += length * (length / documents + 1) / 2;
  }
  return tokens > 0 ? pairs / tokens : 0;
}

// The reference or the teacher, where one goes through each step's tokens.
std::optional<trainer::ModelConfig> second_model(const trainer::Run& run) {
  const recipes::Objective& objective = run.recipe.objective;
  if (objective.teacher) return trainer::load_config(*objective.teacher);
  if (!run.objective->needs_reference() || objective.precompute_ref_log_probs.value_or(false))
    return std::nullopt;
  const std::string given = objective.ref_model.value_or("");
  return given.empty() ? run.inputs.config : trainer::load_config(given);
}

}  // namespace

Prediction predict_time(const trainer::Run& run, const trainer::MemoryPlan& plan,
                        PlannedDevice device) {
  const int world = run.world.size;
  const recipes::Recipe& recipe = run.recipe;
  Prediction prediction{.device = std::move(device)};
  const auto& rates = prediction.device.rates;
  if (!rates) return prediction;
  const auto tokens = static_cast<double>(tokens_of_step(run));
  const trainer::TypeRates& of_type = rates->of(recipe.train.precision);
  if (of_type.peak > 0) {
    const bool adapters = !recipe.peft.method.empty() || !recipe.model.adapter.empty();
    const double a_token =
        trainer::training_flops_per_token(run.inputs.config, mean_attended(run), adapters);
    prediction.at_least = a_token * tokens / (of_type.peak * world);
  }
  prediction.missing = trainer::not_predicted(recipe);
  if (!of_type.complete() || rates->copy_bytes_per_second <= 0)
    prediction.missing = "temper doctor measures what else it depends on";
  if (!prediction.missing.empty()) return prediction;

  const double share = run.datasets.train_tokens == 0
                           ? 0
                           : static_cast<double>(run.datasets.train_supervised) /
                                 static_cast<double>(run.datasets.train_tokens);
  const trainer::StepWork work{
      .tokens = tokens / world,
      .supervised = share * tokens / world,
      .attended = mean_attended(run),
      .micro_batches = std::max<int64_t>(1, recipe.batch.global / (recipe.batch.micro * world)),
      .trainable = plan.trainable,
      .ranks = world,
      .second_model = second_model(run)};
  const auto link = trainer::stored_link(prediction.device.links_name, world);
  prediction.step = trainer::predict_step(recipe, run.inputs.config, work, *rates, link);
  if (world > 1) {
    prediction.exchange =
        link ? "with the exchange at the rate that temper doctor measured between " +
                   std::to_string(link->ranks) + " ranks on " + std::to_string(link->hosts) +
                   (link->hosts == 1 ? " host" : " hosts")
             : "the exchange is not counted: mpirun -n " + std::to_string(world) +
                   " temper doctor measures its rate";
  }
  return prediction;
}

data::Json time_json(const trainer::Run& run, const Prediction& prediction) {
  if (!prediction.at_least) return nullptr;
  const auto steps = static_cast<double>(run.total_steps);
  data::Json time = {{"step_seconds_at_least", *prediction.at_least},
                     {"run_seconds_at_least", *prediction.at_least * steps},
                     {"step_seconds", nullptr},
                     {"run_seconds", nullptr},
                     {"device", prediction.device.name},
                     {"measured", prediction.device.measured}};
  if (prediction.step) {
    time["step_seconds"] = prediction.step->total();
    time["run_seconds"] = prediction.step->total() * steps;
    time["components"] = trainer::to_json(*prediction.step);
  } else {
    time["missing"] = prediction.missing;
  }
  if (!prediction.exchange.empty()) time["exchange"] = prediction.exchange;
  return time;
}

void print_time(const trainer::Run& run, const Prediction& prediction) {
  const auto minutes = [&](double seconds) {
    return seconds * static_cast<double>(run.total_steps) / 60;
  };
  if (!prediction.at_least) {
    std::printf(
        "time       unknown: temper doctor measures the rate of this machine, --device NAME takes "
        "a data sheet's\n");
    return;
  }
  const std::string device =
      (run.world.size > 1 ? "each rank on " : "on ") + prediction.device.name;
  const char* stands_on =
      prediction.device.measured ? "at the rates that temper doctor measured" : "by its data sheet";
  if (!prediction.step) {
    std::printf("time       at least %.3g s a step, %.3g min in all: the products alone, %s %s\n",
                *prediction.at_least, minutes(*prediction.at_least), device.c_str(), stands_on);
    std::printf("           no more is known: %s\n", prediction.missing.c_str());
    return;
  }
  const double seconds = prediction.step->total();
  std::printf("time       %s%.3g s a step, %.3g min in all, %s %s\n",
              prediction.device.measured ? "" : "at best ", seconds, minutes(seconds),
              device.c_str(), stands_on);
  std::string parts;
  const data::Json components = trainer::to_json(*prediction.step);
  for (const auto& [name, part] : components.items()) {
    const double percent = 100 * part.get<double>() / seconds;
    if (percent < 0.5) continue;
    char text[64];
    std::snprintf(text, sizeof text, "%s%s %.0f %%", parts.empty() ? "" : ", ", name.c_str(),
                  percent);
    parts += text;
  }
  std::printf("           %s\n", parts.c_str());
  if (!prediction.exchange.empty()) std::printf("           %s\n", prediction.exchange.c_str());
}

}  // namespace temper::launch
