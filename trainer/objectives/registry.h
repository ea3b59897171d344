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

/// objective.loss_type as a list, or as the one name it must be. Throws UserError for several.
std::vector<std::string> names_of(const recipes::NamesOrPattern& loss_type);
std::string name_of_one(const std::optional<recipes::NamesOrPattern>& loss_type,
                        const char* otherwise);

std::unique_ptr<Objective> build_cpo(const recipes::Objective& objective);           // cpo.cpp
std::unique_ptr<Objective> build_distill(const recipes::Objective& objective);       // distillation.cpp
std::unique_ptr<Objective> build_dpo(const recipes::Objective& objective);           // dpo.cpp
std::unique_ptr<Objective> build_gkd(const recipes::Objective& objective);           // distillation.cpp
std::unique_ptr<Objective> build_kto(const recipes::Objective& objective);           // kto.cpp
std::unique_ptr<Objective> build_orpo(const recipes::Objective& objective);          // orpo.cpp
std::unique_ptr<Objective> build_ppo(const recipes::Objective& objective);           // ppo.cpp
std::unique_ptr<Objective> build_reward_model(const recipes::Objective& objective);  // reward.cpp
std::unique_ptr<Objective> build_sft(const recipes::Objective& objective);  // sft.cpp
std::unique_ptr<Objective> build_grpo(const recipes::Objective& objective);  // grpo.cpp
std::unique_ptr<Objective> build_rloo(const recipes::Objective& objective);  // grpo.cpp
std::unique_ptr<Objective> build_online_dpo(const recipes::Objective& objective);

}  // namespace temper::trainer
