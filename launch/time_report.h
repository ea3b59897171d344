#pragma once

#include <optional>
#include <string>

#include "data/io/json.h"
#include "parallel/world.h"
#include "trainer/memory_plan.h"
#include "trainer/metrics/device_rates.h"
#include "trainer/run.h"
#include "trainer/time_plan.h"

/// What `temper plan` says of time: of which device, on what it stands, and what it leaves out.
namespace temper::launch {

struct PlannedDevice {
  std::string name{};        // "": there is none
  std::string links_name{};  // what links between ranks on it are stored under
  std::optional<trainer::DeviceRates> rates{};
  bool measured = false;  // else by its data sheet
  std::string memory{};   // "80GiB"; "": not known
};

/// A row of known_devices.h, with measured rates where doctor has seen one, or what doctor has
/// measured under that name. Throws UserError naming those that are known.
PlannedDevice device_named(const std::string& name);

/// Where the recipe would run on this machine.
PlannedDevice device_here(recipes::Device wanted, const parallel::World& world);

struct Prediction {
  PlannedDevice device{};
  std::optional<double> at_least{};  // seconds: a step's model FLOPs at the peak rate of products
  std::optional<trainer::StepTime> step{};
  std::string missing{};   // why there is no step
  std::string exchange{};  // of several ranks: what it stands on
};

/// `run` is assembled for run.world.size ranks.
Prediction predict_time(const trainer::Run& run, const trainer::MemoryPlan& plan,
                        PlannedDevice device);

/// Of all sequences of a step, about.
int64_t tokens_of_step(const trainer::Run& run);

/// null where nothing is known.
data::Json time_json(const trainer::Run& run, const Prediction& prediction);
void print_time(const trainer::Run& run, const Prediction& prediction);

}  // namespace temper::launch
