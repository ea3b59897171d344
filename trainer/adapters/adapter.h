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
#include "trainer/ops/linear.h"

/// What an adapter of one linear layer is, and what it is given. Layers are named as in PEFT: the
/// base model's module path, "model.layers.0.self_attn.q_proj". A method is one file with a class
/// and a row in registry.cpp.
///
/// The layer itself is ops/linear.h's BaseLinear, dropout is ops/low_rank.h's adapter_dropout.
/// Legend: M tokens, D input features, N output features, R rank.
namespace temper::trainer {

/// Where an adapter sits.
struct LinearSite {
  std::string module;
  int64_t in_features = 0;
  int64_t out_features = 0;
};

/// What the forward pass sees of an adapter's tensor: matrices in the compute type; vectors that
/// scale whole columns in float32 always, for bfloat16 would lose what they learn.
enum class Precision { kCompute, kFloat32 };

/// Declares an adapter's tensors: leaves with float32 masters, appended to the model's parameters
/// under the key they have in adapter_model.safetensors
/// ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"), uninitialised.
class AdapterTensors {
 public:
  /// `dtype`: peft.dtype, what the tensors are rounded to.
  AdapterTensors(const ModelOptions& options, at::ScalarType dtype,
                 std::vector<Parameter>& parameters)
      : compute_(options.compute),
        device_(options.device),
        dtype_(dtype),
        parameters_(parameters) {}

  /// `suffix`: "lora_A.weight". `trainable` false: stored with the adapter, never updated.
  Parameter add(const LinearSite& site, const std::string& suffix, at::IntArrayRef shape,
                Precision precision = Precision::kCompute, bool trainable = true);
  /// The same over memory that is there already (a part of stacked matrices), and by its whole key.
  Parameter add(const std::string& key, const at::Tensor& storage, bool trainable = true);

  /// Tensors that several layers share, by key (VeRA's projections).
  std::map<std::string, Parameter>& shared() { return shared_; }
  at::Tensor empty(at::IntArrayRef shape, Precision precision = Precision::kCompute) const;

 private:
  at::ScalarType compute_;
  at::Device device_;
  at::ScalarType dtype_;
  std::vector<Parameter>& parameters_;
  std::map<std::string, Parameter> shared_;
};

/// The base weight W [N, D] in float32 on the host, made when it is asked for.
using BaseWeight = std::function<at::Tensor()>;

class LinearAdapter {
 public:
  virtual ~LinearAdapter() = default;

  /// The adapted layer's output [M, N], the base's bias included, differentiable in x [M, D] and in
  /// the adapter's tensors.
  virtual at::Tensor forward(const at::Tensor& x, const BaseLinear& base,
                             const AdapterContext& context) const = 0;

  /// Draws the masters as PEFT does. An init that changes the base (PiSSA, OLoRA) returns the new W
  /// [N, D] float32; all others an undefined tensor. `seed` is this layer's own.
  virtual at::Tensor initialize(const BaseWeight& weight, uint64_t seed) = 0;

  /// Folds the adapter into the layer, in float32 as PEFT's merge does: `weight` [N, D] and `bias`
  /// [N] (undefined when there is none) become those of the plain layer, which the caller rounds
  /// to `dtype`.
  virtual void merge(at::Tensor& weight, at::Tensor& bias, at::ScalarType dtype) const = 0;
};

/// From the registry by peft.method. Throws UserError where the method cannot sit there (a rank
/// above the matrix, a block size that does not divide).
std::unique_ptr<LinearAdapter> build_adapter(const recipes::Peft& peft, const LinearSite& site,
                                             AdapterTensors& tensors);

}  // namespace temper::trainer
