#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <ATen/core/Tensor.h>

#include "trainer/checkpoint/safetensors.h"

namespace temper::data {
struct Batch;
}

namespace temper::trainer {

class Adapters;
class Model;

/// The policy that a loss compares the trained one with: the start weights.
class Reference {
 public:
  virtual ~Reference() = default;
  /// Log-probabilities of the batch's targets, [n] float32, of logits divided by `temperature`,
  /// where they are computed or kept; no gradient, no dropout.
  virtual at::Tensor log_probs(const data::Batch& batch, double temperature) = 0;
  /// What computes them; null where nothing is held.
  virtual Model* model() { return nullptr; }
  /// After the update of `step` (from 1): a reference that follows the policy takes its part of it.
  virtual void follow(Model& /*policy*/, int64_t /*step*/) {}
  /// What follow() changes, as checkpoints hold it, and what to do once it has been loaded.
  virtual NamedTensors state() { return {}; }
  virtual void restored() {}
};

/// The policy's own model as it was when this is called: nothing is held twice but what is trained.
/// New adapters are switched off, as PEFT's disable_adapter() does, and what is trained beside them
/// (modules_to_save, biases, norms) takes its start values for the pass. Adapters that came from a
/// directory (`loaded`) are part of the start, as TRL's adapter `ref`; so are PiSSA and OLoRA, whose
/// base alone is not the start.
std::unique_ptr<Reference> reference_by_start(Model& model, Adapters& adapters, bool loaded);

/// The policy as it is whenever it is asked: what it starts from, before the first update.
std::unique_ptr<Reference> reference_by_policy(Model& model);

/// TR-DPO (Gorbatovski et al. 2024, arXiv:2404.09656): every `every` steps
/// reference = (1 - alpha) reference + alpha policy.
struct FollowOptions {
  double alpha = 0.6;
  int64_t every = 512;
};

/// A model of its own, frozen. With `follow` it needs float32 masters.
std::unique_ptr<Reference> reference_by_model(std::unique_ptr<Model> model,
                                              const std::optional<FollowOptions>& follow);

}  // namespace temper::trainer
