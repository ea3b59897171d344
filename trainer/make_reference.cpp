#include "trainer/make_reference.h"

#include <filesystem>
#include <utility>

#include "recipes/diagnostic.h"
#include "recipes/enum_names.h"
#include "trainer/objectives/registry.h"
#include "trainer/objectives/stored_reference.h"
#include "trainer/run.h"
#include "trainer/teacher.h"

namespace temper::trainer {
namespace {

// A frozen model of `config`, computed in as the policy is.
std::unique_ptr<Model> frozen_model(const Run& run, const ModelConfig& config, bool follows) {
  ModelOptions options = model_options(run.recipe, run.device);
  options.activation_checkpointing = 0;
  options.frozen = !follows;  // one that follows the policy keeps float32 masters
  auto model = build_model(config, options);
  const std::filesystem::path given = run.recipe.objective.ref_model.value_or("");
  if (!given.empty()) {
    load_weights(*model, options, given);
  } else if (run.recipe.model.init == recipes::Init::kPretrained) {
    load_weights(*model, options, run.inputs.model_directory);
  } else {
    draw_weights(*model, options, run.recipe.run.seed);
  }
  return model;
}

ModelConfig config_of(const Run& run, const std::string& given) {
  ModelConfig config = load_config(given);
  if (config.num_labels > 0 || config.vocab_size != run.inputs.config.vocab_size) {
    throw UserError("objective.ref_model = \"" + given + "\": must be a language model with the policy's vocabulary of " +
                    std::to_string(run.inputs.config.vocab_size) + " tokens");
  }
  return config;
}

}  // namespace

std::unique_ptr<Reference> make_reference(Run& run) {
  const recipes::Objective& objective = run.recipe.objective;
  if (objective.teacher) return reference_by_model(load_teacher(run), {});
  const std::string given = objective.ref_model.value_or("");
  const bool stored = objective.precompute_ref_log_probs.value_or(false) && run.datasets.train;
  std::optional<FollowOptions> follow;
  if (objective.sync_ref_model.value_or(false)) {
    if (run.adapters) {
      throw UserError("objective.sync_ref_model: with adapters the reference is the policy without them, and cannot follow it: "
                      "train all weights, or leave it out");
    }
    if (stored) throw UserError("objective.sync_ref_model: not with precompute_ref_log_probs, whose reference stays as it is");
    follow = FollowOptions{.alpha = objective.ref_model_mixup_alpha.value_or(0.6),
                           .every = objective.ref_model_sync_steps.value_or(512)};
  }
  if (stored && objective.kind == "kto" && name_of_one(objective.loss_type, "kto") == "kto") {
    throw UserError("objective.precompute_ref_log_probs: not with kto's loss_type = \"kto\", whose KL is of pairs that each step "
                    "makes anew: leave it out, or use loss_type = \"apo_zero_unpaired\"");
  }
  if (!given.empty()) return reference_by_model(frozen_model(run, config_of(run, given), follow.has_value()), follow);
  if (run.adapters) return reference_by_start(*run.model, *run.adapters, !run.recipe.model.adapter.empty());
  if (stored) return reference_by_policy(*run.model);
  return reference_by_model(frozen_model(run, run.inputs.config, follow.has_value()), follow);
}

void store_references(Run& run) {
  const std::unique_ptr<Reference> live = std::move(run.reference);
  std::string how = run.recipe.peft.method + "/" + run.recipe.model.adapter;
  if (run.recipe.train.float8 != recipes::Float8::kNone) how += "/" + std::string(recipes::name_of(run.recipe.train.float8));
  const auto stored = [&](const data::TokenDataset& dataset) {
    const auto file = stored_reference_file(run.recipe.data.cache, *live, dataset, *run.loader_options.row_layout, how);
    return stored_reference(file, *live, dataset, run.loader_options, *run.communicator);
  };
  run.reference = stored(*run.datasets.train);
  if (run.datasets.eval) run.eval_reference = stored(*run.datasets.eval);
}

}  // namespace temper::trainer
