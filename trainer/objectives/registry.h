#pragma once

#include <memory>
#include <span>

#include "trainer/objectives/objective.h"

namespace temper::trainer {

/// One objective: objective.kind in a recipe. A new one is a file and a row.
struct ObjectiveRow {
  const char* kind;
  std::unique_ptr<Objective> (*build)(const recipes::Objective& objective);
  const char* sentence;
  const char* paper;
};
std::span<const ObjectiveRow> objectives();

std::unique_ptr<Objective> build_sft(const recipes::Objective& objective);  // sft.cpp
std::unique_ptr<Objective> build_grpo(const recipes::Objective& objective);  // grpo.cpp
std::unique_ptr<Objective> build_rloo(const recipes::Objective& objective);  // grpo.cpp

}  // namespace temper::trainer
