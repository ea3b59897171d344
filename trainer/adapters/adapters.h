#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trainer/adapters/adalora.h"
#include "trainer/adapters/adapter.h"
#include "trainer/adapters/combine.h"
#include "trainer/adapters/lora.h"
#include "trainer/adapters/prompt_learning.h"
#include "trainer/adapters/targets.h"
#include "trainer/adapters/token_adapters.h"
#include "trainer/checkpoint/safetensors.h"

/// The adapters on one model, made from a resolved [peft]: linear layers are wrapped (of LoRA also
/// the embedding and the output head), and what else of the base the method trains along
/// (modules_to_save, biases, norms, single tokens) is set free. Prompt learning wraps nothing: it
/// stands virtual tokens in front of the model's documents.
namespace temper::trainer {

/// The base's own weight by its parameter's name, as stored; an empty function: there is none but
/// what the model holds.
using StoredBase = std::function<at::Tensor(const std::string& name)>;

class Adapters {
 public:
  /// Wraps the layers that [peft] names and appends their tensors, uninitialised, to the model's
  /// parameters. The model's weights must be there and frozen. Throws UserError where targets match
  /// nothing or a method cannot sit where it should.
  /// `from_file`: the [peft] of an adapter's directory, which may name absent modules and have
  /// ranks above a matrix's.
  Adapters(const recipes::Peft& peft, Model& model, const ModelOptions& options,
           bool from_file = false);

  /// Draws every adapter's start from `seed` and its layer's name. PiSSA, OLoRA and LoftQ change the
  /// base.
  /// `prompt_text`: the tokens of peft.prompt_tuning_init_text, where there is one (none: random).
  /// `stored`: what they make the base of, and the same again in change_base_again(), whatever type
  /// the model computes in.
  void initialize(int64_t seed, std::span<const int32_t> prompt_text = {},
                  const StoredBase& stored = {});

  /// The start of A by module, instead of the drawn one (EVA).
  void start_from(const std::map<std::string, at::Tensor>& a);

  /// What adapter_model.safetensors holds, by its keys. (A residual init: not yet converted.) Where
  /// an encoder makes the prompt, what it makes now; all others are the masters themselves, those
  /// of the base as its files have them (in_stored_order).
  NamedTensors tensors() const;
  /// What a start that changes the base needs to do so again, by key; empty for all others. What
  /// loading writes into it counts once change_base_again has made the base from its original
  /// weights.
  NamedTensors start() const;
  void change_base_again(const StoredBase& stored);
  /// The same as a plain adapter of the original base: residual inits become a LoRA of twice the
  /// rank (PEFT's path_initial_model_for_weight_conversion), with the [peft] that goes with it.
  std::pair<recipes::Peft, NamedTensors> plain() const;

  /// A and B of every module, for combinations. Throws UserError naming `where` for anything but a
  /// plain LoRA: DoRA, trained biases and modules have no sum.
  LoraModules lora_factors(const std::string& where) const;

  /// Folds the adapter of `module`, if it has one, into the original base's weight and bias
  /// (undefined when there is none), float32, in place.
  void merge(const std::string& module, at::Tensor& weight, at::Tensor& bias,
             at::ScalarType dtype) const;
  /// Matrices [V, D] whose rows are adapted by token, by their parameter's name, and the same for
  /// them; `dtype` is what the merged matrix is rounded to.
  std::vector<std::string> token_matrices() const;
  void merge_tokens(const std::string& name, at::Tensor& weight, at::ScalarType dtype) const;
  /// Throws UserError where the adapters cannot be folded into the weights.
  void check_mergeable() const;

  /// Weights of the base that PEFT saves along with these adapters, unchanged: by key, with the
  /// parameter's name. (Of embedding and head when "embed_tokens" or "lm_head" is a target.)
  const std::vector<std::pair<std::string, std::string>>& saved_base() const { return saved_base_; }
  /// Those that an adapter's directory brought, by the parameter's name, as stored: they count, not
  /// the base's own.
  const std::map<std::string, at::Tensor>& brought_base() const { return brought_base_; }
  void bring_base(const std::string& name, const at::Tensor& stored);

  const recipes::Peft& peft() const { return peft_; }
  /// "lora on 35 modules: 0.05M of 0.31M parameters trained, kept and exported in fp32": for the
  /// log.
  std::string statement() const;
  std::vector<std::string> modules() const;  // those wrapped
  /// target_modules as adapter_config.json has them.
  const recipes::NamesOrPattern& saved_targets() const { return saved_targets_; }
  const ModelConfig& model_config() const { return model_.config(); }
  AdapterContext& context() { return *context_; }
  /// AdaLoRA's budget of ranks, which the training loop keeps up to date; null for other methods.
  RankAllocator* allocator() { return allocator_.get(); }

 private:
  void wrap(Projection& projection, const std::vector<LinearSlot>& slots, AdapterTensors& tensors);
  void wrap_low_rank(Projection& projection, const std::vector<LinearSlot>& slots,
                     AdapterTensors& tensors);
  void check_transposed() const;
  void train_added_tokens();
  void wrap_head(AdapterTensors& tensors);
  void wrap_tokens(AdapterTensors& tensors);
  bool has_target(const std::string& module) const;
  bool adapts_tied() const;
  const Lora& lora_of(const std::string& module) const;
  at::Tensor original_of(const std::string& module, const StoredBase& stored) const;
  void train_along(Parameter& parameter, const std::string& key, const ModelOptions& options);
  void set_base_free(const ModelOptions& options);

  recipes::Peft peft_;
  const bool from_file_;
  Model& model_;
  const std::string embedding_name_;
  std::shared_ptr<AdapterContext> context_;
  std::vector<std::string> targets_;
  recipes::NamesOrPattern saved_targets_;
  std::vector<std::pair<std::string, BaseWeight>> wrapped_;         // modules of adapters_ in order
  std::map<std::string, std::shared_ptr<LinearAdapter>> adapters_;  // by module
  std::unique_ptr<EmbeddingLora> embedding_;
  std::unique_ptr<TokenRows> token_rows_, head_rows_;
  std::vector<std::pair<std::string, std::string>> keys_;  // of the file -> parameter's name
  std::vector<std::pair<std::string, std::string>> saved_base_;
  std::map<std::string, at::Tensor> brought_base_;
  std::unique_ptr<RankAllocator> allocator_;
  std::unique_ptr<PromptLearning> prompt_;
  std::map<std::string, at::Tensor> start_;  // by key, see start()
};

/// The [peft] of a directory's adapter as it is gone on with: without the encoder that made virtual
/// tokens (without_encoder), kept in the type that it is stored in.
recipes::Peft peft_of_directory(const std::filesystem::path& directory);

/// The adapter of a directory that PEFT or export wrote, on `model`, whose weights must be there
/// and frozen. `stored`: as in Adapters::initialize. Throws UserError.
std::unique_ptr<Adapters> load_adapter(const std::filesystem::path& directory, Model& model,
                                       const ModelOptions& options,
                                       const StoredBase& stored = {});

/// A combination as adapters of its own (r and lora_alpha alike, the modules listed).
std::unique_ptr<Adapters> adapters_of(const CombinedLora& combined, Model& model,
                                      const ModelOptions& options);

/// LoftQ quantises the weights as they are stored. Throws UserError where `weights` in memory would
/// be rounded before, so that the adapter would fit no other base.
void check_base_of_start(const recipes::Peft& peft, const ModelConfig& config,
                         at::ScalarType weights);

/// peft.dtype as a type of tensors.
at::ScalarType adapter_dtype(const recipes::Peft& peft);

/// adapter_config.json of these adapters on the base that `base` names.
data::Json adapter_config(const Adapters& adapters, const std::string& base);

/// adapter_model.safetensors of these adapters: plain() in `dtype`, and saved_base() as `base` has
/// it stored.
NamedTensors saved_tensors(const Adapters& adapters, at::ScalarType dtype,
                           const std::function<at::Tensor(const std::string& name)>& base);

/// Weights of the plain model by its own names, adapters folded in. `base` gives an original
/// weight; what no adapter touches is passed through as it is, merged weights are rounded to
/// `dtype` once. Throws UserError for virtual tokens, which are in no weight.
NamedTensors merged_weights(Model& model, const Adapters& adapters,
                            const std::function<at::Tensor(const std::string& name)>& base,
                            at::ScalarType dtype);

}  // namespace temper::trainer
