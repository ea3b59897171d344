#pragma once

#include <string>
#include <utility>
#include <vector>

namespace temper::trainer {

/// One line of metrics: names as TRL and transformers use them, in the order they are printed.
using MetricLine = std::vector<std::pair<std::string, double>>;

}  // namespace temper::trainer
