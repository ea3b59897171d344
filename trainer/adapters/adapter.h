#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "recipes/recipe.h"
#include "trainer/models/model.h"

/// What an adapter of one linear layer is, and what it is given. Layers are named as in PEFT: the
/// base model's module path, "model.layers.0.self_attn.q_proj". A method is one file with a class
/// and a row in registry.cpp.
///
/// Legend: M tokens, D input features, N output features, R rank.
namespace temper::trainer {

/// The wrapped layer: y = x W^T + b.
struct BaseLinear {
  std::function<at::Tensor(const at::Tensor& x)> product;  // x W^T [M, N], differentiable in x
  std::function<at::Tensor()> weight;  // W [N, D] in the compute type, dequantised, no gradient
  at::Tensor bias;                     // b [N]; undefined when there is none
};

/// What changes from one forward pass to the next. One object a model, shared by its adapters.
struct AdapterContext {
  bool training = false;  // dropout acts
  uint64_t seed = 0;      // of this micro-batch: a mask depends on it and on the layer, not on ranks
  bool enabled = true;    // false: the base model alone (the reference model of DPO and GRPO)
};

/// Where an adapter sits.
struct LinearSite {
  std::string module;
  int64_t in_features = 0;
  int64_t out_features = 0;
  bool has_bias = false;
};

/// Declares an adapter's tensors: leaves in the compute type with float32 masters, appended to the
/// model's parameters under the key they have in adapter_model.safetensors
/// ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"), uninitialised.
class AdapterTensors {
 public:
  AdapterTensors(const ModelOptions& options, std::vector<Parameter>& parameters)
      : options_(options), parameters_(parameters) {}

  /// `suffix`: "lora_A.weight". `trainable` false: stored with the adapter, never updated.
  Parameter add(const LinearSite& site, const std::string& suffix, at::IntArrayRef shape,
                bool trainable = true);
  /// The same over memory that is there already (a part of stacked matrices), and by its whole key.
  Parameter add(const std::string& key, const at::Tensor& storage, bool trainable = true);

  /// Tensors that several layers share, by key (VeRA's projections).
  std::map<std::string, Parameter>& shared() { return shared_; }
  at::ScalarType compute() const { return options_.compute; }

 private:
  const ModelOptions& options_;
  std::vector<Parameter>& parameters_;
  std::map<std::string, Parameter> shared_;
};

class LinearAdapter {
 public:
  virtual ~LinearAdapter() = default;

  /// The adapted layer's output [M, N], the base's bias included, differentiable in x [M, D] and in
  /// the adapter's tensors.
  virtual at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                             const AdapterContext& context) const = 0;

  /// Draws the masters as PEFT does. `weight`: W [N, D] float32; an init that changes the base
  /// (PiSSA, OLoRA, LoftQ) writes the new W into it and returns true. `seed` is this layer's own.
  virtual bool initialize(at::Tensor& weight, uint64_t seed) = 0;

  /// Folds the adapter into the layer, in float32 as PEFT's merge does: `weight` [N, D] and `bias`
  /// [N] (undefined when there is none) become those of the plain layer.
  virtual void merge(at::Tensor& weight, at::Tensor& bias) const = 0;
};

/// From the registry by peft.method. Throws UserError where the method cannot sit there (a rank
/// above the matrix, a block size that does not divide).
std::unique_ptr<LinearAdapter> build_adapter(const recipes::Peft& peft, const LinearSite& site,
                                             AdapterTensors& tensors);

/// x with each element zero with probability p, else x / (1 - p); the mask depends on context.seed,
/// `module` and the element's place alone and is drawn again in backward. x itself when p is 0 or
/// context.training is false.
at::Tensor adapter_dropout(const at::Tensor& x, double p, const std::string& module,
                           const AdapterContext& context);

}  // namespace temper::trainer
