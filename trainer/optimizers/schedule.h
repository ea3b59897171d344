#pragma once

#include <cstdint>

#include "recipes/recipe.h"

namespace temper::trainer {

/// The factor on optimizer.lr for update `step` (from 1) of `total`: transformers' schedules
/// (references.md 3.1), with t = step - 1 updates already done. A pure function: resuming restores
/// nothing.
double schedule_factor(const recipes::Schedule& schedule, double lr, int64_t step, int64_t total);

/// schedule.warmup in steps: ceil(fraction x total) below 1, else the number itself.
int64_t warmup_steps(const recipes::Schedule& schedule, int64_t total);

}  // namespace temper::trainer
