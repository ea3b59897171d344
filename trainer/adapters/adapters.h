#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trainer/adapters/adapter.h"
#include "trainer/adapters/lora.h"
#include "trainer/adapters/prompt_learning.h"
#include "trainer/adapters/targets.h"
#include "trainer/checkpoint/safetensors.h"

/// The adapters on one model, made from a resolved [peft]: linear layers are wrapped, and what else
/// of the base the method trains along (modules_to_save, biases, norms) is set free. Prompt learning
/// wraps nothing: it stands virtual tokens in front of the model's documents.
namespace temper::trainer {

class Adapters {
 public:
  /// Wraps the layers that [peft] names and appends their tensors, uninitialised, to the model's
  /// parameters. The model's weights must be there and frozen. Throws UserError where targets match
  /// nothing or a method cannot sit where it should.
  Adapters(const recipes::Peft& peft, Model& model, const ModelOptions& options);

  /// Draws every adapter's start from `seed` and its layer's name. PiSSA and OLoRA change the base.
  /// `prompt_text`: the tokens of peft.prompt_tuning_init_text, where there is one (none: random).
  void initialize(int64_t seed, std::span<const int32_t> prompt_text = {});

  /// What adapter_model.safetensors holds, by its keys. (A residual init: not yet converted.) Where an
  /// encoder makes the prompt, what it makes now; all others are the masters themselves.
  NamedTensors tensors() const;
  /// The same as a plain adapter of the original base: residual inits become a LoRA of twice the
  /// rank (PEFT's path_initial_model_for_weight_conversion), with the [peft] that goes with it.
  std::pair<recipes::Peft, NamedTensors> plain() const;

  /// Folds the adapter of `module`, if it has one, into the original base's weight and bias (undefined
  /// when there is none), float32, in place.
  void merge(const std::string& module, at::Tensor& weight, at::Tensor& bias) const;

  const recipes::Peft& peft() const { return peft_; }
  std::vector<std::string> modules() const;  // those wrapped
  /// target_modules as adapter_config.json has them.
  const recipes::NamesOrPattern& saved_targets() const { return saved_targets_; }
  const ModelConfig& model_config() const { return model_.config(); }
  AdapterContext& context() { return *context_; }

 private:
  void wrap(Projection& projection, const std::vector<LinearSlot>& slots, AdapterTensors& tensors);
  void wrap_low_rank(Projection& projection, const std::vector<LinearSlot>& slots,
                     AdapterTensors& tensors);
  void train_along(Parameter& parameter, const std::string& key, const ModelOptions& options);
  void set_base_free(const ModelOptions& options);

  recipes::Peft peft_;
  Model& model_;
  std::shared_ptr<AdapterContext> context_;
  std::vector<std::string> targets_;
  recipes::NamesOrPattern saved_targets_;
  std::vector<LinearSlot> slots_;  // the wrapped ones
  std::map<std::string, std::shared_ptr<LinearAdapter>> adapters_;  // by module
  std::vector<std::pair<std::string, std::string>> keys_;  // of the file -> parameter's name
  std::unique_ptr<PromptLearning> prompt_;
  std::map<std::string, at::Tensor> start_;  // by key: of a residual init, before step 1
};

/// The adapter of a directory that PEFT or export wrote, on `model`, whose weights must be there and
/// frozen. Virtual tokens come without the encoder that made them (without_encoder). Throws
/// UserError.
std::unique_ptr<Adapters> load_adapter(const std::filesystem::path& directory, Model& model,
                                       const ModelOptions& options);

/// peft.dtype as a type of tensors.
at::ScalarType adapter_dtype(const recipes::Peft& peft);

/// adapter_config.json of these adapters on the base that `base` names.
data::Json adapter_config(const Adapters& adapters, const std::string& base);

/// Weights of the plain model by its own names, adapters folded in. `base` gives an original weight;
/// what no adapter touches is passed through as it is, merged weights are rounded to `dtype` once.
/// Throws UserError for virtual tokens, which are in no weight.
NamedTensors merged_weights(Model& model, const Adapters& adapters,
                            const std::function<at::Tensor(const std::string& name)>& base,
                            at::ScalarType dtype);

/// A scope without adapters: the base model alone.
class AdaptersOff {
 public:
  explicit AdaptersOff(AdapterContext& context) : context_(context), before_(context.enabled) {
    context_.enabled = false;
  }
  ~AdaptersOff() { context_.enabled = before_; }
  AdaptersOff(const AdaptersOff&) = delete;
  AdaptersOff& operator=(const AdaptersOff&) = delete;

 private:
  AdapterContext& context_;
  const bool before_;
};

}  // namespace temper::trainer
