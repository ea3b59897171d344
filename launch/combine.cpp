#include "launch/combine.h"

#include <cmath>
#include <cstdlib>

#include <ATen/core/Tensor.h>

#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "trainer/adapters/adapter_files.h"
#include "trainer/adapters/adapters.h"
#include "trainer/models/model.h"

namespace temper::launch {

namespace fs = std::filesystem;

namespace {

const trainer::ModelOptions kShapes = {
    .compute = at::kFloat, .weights = at::kFloat, .frozen = true};

// "DIR=0.5": what follows the last '=' is the weight, unless such a directory is there.
std::pair<fs::path, double> split(const std::string& argument) {
  const size_t equals = argument.rfind('=');
  if (equals == std::string::npos || fs::exists(argument)) return {argument, 1.0};
  const std::string number = argument.substr(equals + 1);
  char* end = nullptr;
  const double weight = std::strtod(number.c_str(), &end);
  if (number.empty() || *end != '\0' || !std::isfinite(weight)) {
    throw UserError("temper export: --adapter " + argument + ": \"" + number +
                    "\" is no weight (give DIR or DIR=0.5)");
  }
  return {argument.substr(0, equals), weight};
}

}  // namespace

LoadedModel combine_on(const Source& base, const std::vector<std::string>& adapters,
                       const trainer::Combination& combination) {
  const trainer::ModelConfig config = trainer::load_config(base.model);
  std::vector<trainer::LoraModules> loras;
  std::vector<double> weights;
  for (const std::string& argument : adapters) {
    const auto [directory, weight] = split(argument);
    adapter_source(directory, base.model);  // says what is wrong with it
    const auto shapes = trainer::build_model(config, kShapes);
    // PiSSA and OLoRA adapters that were not converted start from the base's own weights.
    if (recipes::changes_base(trainer::read_adapter_config(directory))) {
      trainer::load_weights(*shapes, kShapes, base.model);
    }
    loras.push_back(
        trainer::load_adapter(directory, *shapes, kShapes)->lora_factors(directory.string()));
    weights.push_back(weight);
  }
  LoadedModel loaded;
  loaded.model = trainer::build_model(config, kShapes);
  trainer::load_weights(*loaded.model, kShapes, base.model);
  loaded.adapters = trainer::adapters_of(trainer::combine_adapters(loras, weights, combination),
                                         *loaded.model, kShapes);
  return loaded;
}

}  // namespace temper::launch
