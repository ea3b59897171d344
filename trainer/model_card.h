#pragma once

#include <cstdint>
#include <string>

namespace temper::trainer {

struct Run;

/// README.md of an export: what was trained from what, with which recipe, to which loss.
std::string model_card(const Run& run, int64_t steps);

}  // namespace temper::trainer
