#include "trainer/adapters/adapters.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "parallel/seed.h"
#include "recipes/diagnostic.h"
#include "recipes/enum_names.h"
#include "recipes/name_pattern.h"
#include "recipes/peft_methods.h"
#include "trainer/adapters/targets.h"
#include "trainer/models/decoder_names.h"

namespace temper::trainer {

namespace {

constexpr const char* kPrefix = "base_model.model.";
constexpr const char* kHead = "lm_head";
constexpr const char* kScore = "score";
constexpr const char* kClassifier = "classifier";

std::string module_of(const std::string& parameter) {
  return parameter.substr(0, parameter.rfind('.'));
}

// Whether PEFT sees from target_modules that the embedding or the head is adapted: a list must name
// them by their last name alone, and the only embedding that it knows is Llama's.
bool names_embedding(const recipes::NamesOrPattern& targets) {
  if (const auto* names = std::get_if<std::vector<std::string>>(&targets)) {
    return std::any_of(names->begin(), names->end(), [](const std::string& name) {
      return name == "embed_tokens" || name == kHead;
    });
  }
  const recipes::NamePattern pattern(std::get<std::string>(targets), "peft.target_modules");
  return pattern.matches(kLlamaNames.embedding) || pattern.matches(kHead);
}

// PEFT's SEQ_CLS trains and saves the head under either of its usual names.
void save_classification_head(recipes::Peft& peft) {
  std::vector<std::string> modules = peft.modules_to_save.value_or(std::vector<std::string>{});
  for (const char* name : {kClassifier, kScore}) {
    if (std::find(modules.begin(), modules.end(), name) == modules.end()) modules.push_back(name);
  }
  peft.modules_to_save = std::move(modules);
}

bool is_lora_a(const std::string& key) {
  return key.ends_with("lora_A.weight") || key.ends_with("lora_embedding_A");
}
bool is_lora_b(const std::string& key) {
  return key.ends_with("lora_B.weight") || key.ends_with("lora_embedding_B");
}

}  // namespace

at::ScalarType adapter_dtype(const recipes::Peft& peft) {
  return peft.dtype == recipes::Dtype::kFp32   ? at::kFloat
         : peft.dtype == recipes::Dtype::kBf16 ? at::kBFloat16
                                               : at::kHalf;
}

Adapters::Adapters(const recipes::Peft& peft, Model& model, const ModelOptions& options,
                   bool from_file)
    : peft_(peft),
      from_file_(from_file),
      model_(model),
      embedding_name_(names_of(model.config()).embedding),
      context_(std::make_shared<AdapterContext>()) {
  check_transposed();
  const std::vector<LinearSlot> slots = model.linears();
  const std::vector<TargetModule> modules = modules_of(model);
  if (model.config().num_labels > 0) save_classification_head(peft_);
  set_default_targets(peft_, model.config().model_type);
  targets_ = find_targets(peft_, model.config().model_type, modules, /*strict=*/!from_file);
  if (peft_.target_modules) saved_targets_ = trainer::saved_targets(peft_, modules);
  if (options.quantize && changes_base(peft_)) {
    throw UserError("peft.init_lora_weights = \"" +
                    std::get<std::string>(*peft_.init_lora_weights) +
                    "\": makes the base anew from its full weights, which are quantised here: not "
                    "together with model.quantize");
  }
  for (const LinearSlot& slot : slots) {
    const bool as_weight = target_name(peft_, slot.module) != slot.module;
    if (!as_weight || slot.projection->quantized.empty()) continue;
    throw UserError("peft.target_parameters: the weight of " + slot.module +
                    " is quantised (model.quantize): name the layer in peft.target_modules");
  }
  train_added_tokens();
  set_base_free(options);

  AdapterTensors tensors(options, adapter_dtype(peft_), model.parameters());
  if (is_prompt_learning(peft_.method)) {
    prompt_ = std::make_unique<PromptLearning>(peft_, model, tensors, context_);
  }
  std::vector<LinearSlot> group;
  const auto close_group = [&] {
    if (!group.empty()) wrap(*group.front().projection, group, tensors);
    group.clear();
  };
  for (const LinearSlot& slot : slots) {
    if (!group.empty() && group.front().projection != slot.projection) close_group();
    if (std::find(targets_.begin(), targets_.end(), slot.module) == targets_.end()) continue;
    group.push_back(slot);
  }
  close_group();
  if (peft_.method == "lora" && has_target(kHead)) wrap_head(tensors);
  wrap_tokens(tensors);
  if (peft_.method == "adalora" && peft_.total_step) {
    allocator_ = std::make_unique<RankAllocator>(peft_, model.parameters());
  }
  for (const std::string& target : targets_) {
    const bool at_its_place = adapters_.contains(target) || peft_.method == "ln_tuning" ||
                              (target == embedding_name_ && embedding_);
    if (at_its_place) continue;
    throw UserError("peft.target_modules: " + target +
                    " is not a linear layer of a block: " + peft_.method +
                    " adapts those only (peft.modules_to_save trains a whole module)");
  }
}

// What PEFT does not do on layers that store their weights transposed (Conv1D).
void Adapters::check_transposed() const {
  const auto refuse = [&](const std::string& what, const std::string& remedy) {
    throw UserError(what + ": PEFT has none for the layers of " + model_.config().architecture +
                    ", which store their weights transposed (Conv1D): " + remedy);
  };
  if (!model_.config().stores_transposed) return;
  for (const char* method : {"loha", "lokr", "oft", "boft"}) {
    if (peft_.method != method) continue;
    refuse("peft.method = \"" + peft_.method + "\"", "use lora, adalora, ia3 or vera");
  }
  if (starts_quantised(peft_)) {
    refuse("peft.init_lora_weights = \"loftq\"", "use another start, pissa for example");
  }
  if (peft_.target_parameters && !peft_.target_parameters->empty()) {
    refuse("peft.target_parameters", "name the layers in peft.target_modules");
  }
}

bool Adapters::has_target(const std::string& module) const {
  return std::find(targets_.begin(), targets_.end(), module) != targets_.end();
}

// Rows of tokens that are new to the model, wherever they are not trained as part of a whole
// matrix.
void Adapters::train_added_tokens() {
  const std::vector<int64_t>& ids = model_.config().added_ids;
  if (ids.empty()) return;
  // A classifier has no row for each token in its head.
  const bool tied = model_.config().tie_word_embeddings || model_.config().num_labels > 0;
  const auto whole = [&](const std::string& module) {
    return has_target(module) ||
           names_module(peft_.modules_to_save.value_or(std::vector<std::string>{}), module);
  };
  if (peft_.method != "lora" && peft_.method != "adalora" && !(whole(embedding_name_) && whole(kHead))) {
    throw UserError("model.add_tokens: " + peft_.method +
                    " does not train single rows: use peft.method = \"lora\"" +
                    (tied ? "" : ", or name embed_tokens and lm_head in peft.modules_to_save"));
  }
  const auto add = [&](std::optional<std::vector<int64_t>>& indices, const std::string& module) {
    if (whole(module)) return;
    if (!indices) indices.emplace();
    for (const int64_t id : ids) {
      if (std::find(indices->begin(), indices->end(), id) == indices->end()) indices->push_back(id);
    }
  };
  add(peft_.trainable_token_indices, embedding_name_);
  if (!tied) add(peft_.head_token_indices, kHead);
}

void Adapters::wrap_head(AdapterTensors& tensors) {
  OutputHead& head = model_.head();
  if (peft_.use_dora.value()) {
    throw UserError(
        "peft.use_dora: not on the output head: leave lm_head out of "
        "peft.target_modules, or peft.use_dora");
  }
  if (model_.config().tie_word_embeddings && changes_base(peft_)) {
    throw UserError("peft.init_lora_weights = \"" +
                    std::get<std::string>(*peft_.init_lora_weights) +
                    "\": changes the weights of lm_head, which are the embedding's too "
                    "(tie_word_embeddings): leave lm_head out of peft.target_modules");
  }
  const LinearSite site{
      .module = kHead, .in_features = head.weight.size(1), .out_features = head.weight.size(0)};
  const int64_t rank = lora_rank(peft_, site, from_file_);
  auto low_rank = std::make_shared<LowRank>();
  low_rank->a = tensors.empty({rank, site.in_features});
  low_rank->dropout = peft_.lora_dropout.value();
  low_rank->context = context_;
  const auto lora = std::make_shared<Lora>(peft_, site, rank, low_rank->a, tensors);
  low_rank->parts.push_back(lora->part(0));
  head.low_rank = std::move(low_rank);
  adapters_[kHead] = lora;
  wrapped_.emplace_back(kHead, [&head] { return head.weight.detach().to(at::kFloat); });
}

// LoRA of the embedding, and rows of single tokens.
void Adapters::wrap_tokens(AdapterTensors& tensors) {
  Embedding& embedding = model_.embedding();
  OutputHead& head = model_.head();
  const bool tied = model_.config().tie_word_embeddings;
  if (peft_.method == "lora" && has_target(embedding_name_)) {
    embedding_ = std::make_unique<EmbeddingLora>(peft_, model_, context_, tensors, from_file_);
  }
  const auto rows_of = [&](const std::string& module, const std::vector<int64_t>& ids,
                           const at::Tensor& weight) {
    if (has_target(module) || weight.requires_grad()) {
      throw UserError("peft.trainable_token_indices: " + module +
                      " is trained as a whole already (peft.target_modules, peft.modules_to_save): "
                      "leave one of them out");
    }
    return std::make_unique<TokenRows>(module, ids, weight, context_, tensors);
  };
  if (peft_.trainable_token_indices && !peft_.trainable_token_indices->empty()) {
    token_rows_ = rows_of(embedding_name_, *peft_.trainable_token_indices, embedding.weight);
    embedding.rows = token_rows_->rows();
    if (tied) {
      if (has_target(kHead)) {
        throw UserError(
            "peft.trainable_token_indices: the rows are those of lm_head too "
            "(tie_word_embeddings), which peft.target_modules names: leave one of them out");
      }
      head.rows = token_rows_->rows();
    }
  }
  if (peft_.head_token_indices && !peft_.head_token_indices->empty() && !tied) {
    head_rows_ = rows_of(kHead, *peft_.head_token_indices, head.weight);
    head.rows = head_rows_->rows();
  }
  for (const std::string& module : {embedding_name_, std::string(kHead)}) {
    const bool whole = module == kHead ? adapters_.contains(kHead) : embedding_ != nullptr;
    // PEFT leaves them out where single rows are trained, unless there are new ones.
    const bool resized = model_.config().added_rows > 0;
    if (!whole || ((token_rows_ || head_rows_) && !resized) || !names_embedding(saved_targets_))
      continue;
    saved_base_.emplace_back(kPrefix + module + ".base_layer.weight",
                             (tied ? embedding_name_ : module) + ".weight");
  }
  for (const Parameter& parameter : model_.parameters()) {
    const bool ours = parameter.name.find(".lora_embedding_") != std::string::npos ||
                      parameter.name.ends_with(".trainable_tokens_delta") ||
                      parameter.name.starts_with(std::string(kPrefix) + kHead + ".lora_");
    if (ours) keys_.emplace_back(parameter.name, parameter.name);
  }
}

// One of two matrices that share their weights is adapted by itself.
bool Adapters::adapts_tied() const {
  return model_.config().tie_word_embeddings && (embedding_ || adapters_.contains(kHead));
}

void Adapters::check_mergeable() const {
  if (prompt_) {
    throw UserError("merging: what " + peft_.method +
                    " trains stands in front of the text, in none of the base's weights: use it "
                    "as an adapter (export without merging)");
  }
  if (peft_.method == "lora" && *peft_.lora_bias) {
    for (const LinearSlot& slot : model_.linears()) {
      if (!has_target(slot.module) || !slot.projection->biases.empty()) continue;
      throw UserError(
          "peft.lora_bias: " + slot.module +
          " has no bias of its own to merge the adapter's into: export without merging");
    }
  }
  if (!adapts_tied()) return;
  throw UserError(
      "peft.target_modules: embed_tokens and lm_head share their weights in this model "
      "(tie_word_embeddings), so what is learned for one of them cannot be merged: "
      "export the adapter without merging");
}

void Adapters::bring_base(const std::string& name, const at::Tensor& stored) {
  brought_base_[name] = stored;
  for (Parameter& parameter : model_.parameters()) {
    if (parameter.name == name) parameter.value.copy_(stored.to(parameter.dtype));
  }
}

void Adapters::train_along(Parameter& parameter, const std::string& key,
                           const ModelOptions& options) {
  make_trainable(parameter, options);
  keys_.emplace_back(key, parameter.name);
}

// What of the base is trained along with the adapters, under PEFT's names.
void Adapters::set_base_free(const ModelOptions& options) {
  const std::string bias = peft_.bias.value_or("none");
  const std::vector<std::string> whole = peft_.modules_to_save.value_or(std::vector<std::string>{});
  for (Parameter& parameter : model_.parameters()) {
    const std::string module = module_of(parameter.name);
    const bool target = std::find(targets_.begin(), targets_.end(), module) != targets_.end();
    if (names_module(whole, module)) {
      if (model_.config().tie_word_embeddings && parameter.value.is_same(model_.head().weight)) {
        throw UserError("peft.modules_to_save: " + module +
                        " shares its weights with the output head in this model "
                        "(tie_word_embeddings), and a copy would part them: leave it out");
      }
      train_along(parameter, kPrefix + parameter.name, options);
    } else if (peft_.method == "ln_tuning" && target) {
      if (!is_norm(module, model_.config())) {
        throw UserError("peft.target_modules: " + module +
                        " is no norm, and ln_tuning trains norms alone");
      }
      const std::string own = parameter.name.substr(module.size());  // ".weight" or ".bias"
      train_along(parameter, kPrefix + module + ".ln_tuning_layers" + own, options);
    } else if (parameter.name.ends_with(".bias") &&
               (bias == "all" || (bias.ends_with("_only") && target))) {
      train_along(parameter, kPrefix + module + (target ? ".base_layer.bias" : ".bias"), options);
    }
  }
  for (const std::string& name : whole) {
    std::vector<std::string> modules;
    for (const Parameter& parameter : model_.parameters())
      modules.push_back(module_of(parameter.name));
    for (const LinearSlot& slot : model_.linears()) modules.push_back(slot.module);
    modules.push_back(kHead);
    if (model_.config().num_labels > 0) modules.push_back(kClassifier);
    const auto named = [&](const std::string& module) { return names_module({name}, module); };
    if (std::any_of(modules.begin(), modules.end(), named)) continue;
    for (std::string& module : modules) module = module.substr(module.rfind('.') + 1);
    const std::string nearest = nearest_name(name, modules);
    throw UserError("peft.modules_to_save: no module is called " + name +
                    (nearest.empty() ? "" : ", did you mean " + nearest + "?"));
  }
  if (model_.config().tie_word_embeddings && names_module(whole, kHead)) {
    throw UserError(
        "peft.modules_to_save: lm_head shares its weights with the embedding in this model "
        "(tie_word_embeddings), and a copy would part them: leave it out");
  }
  for (const LinearSlot& slot : model_.linears()) {
    if (!slot.projection->quantized.empty() && names_module(whole, slot.module)) {
      throw UserError("peft.modules_to_save: " + slot.module +
                      " is quantised (model.quantize), so it cannot be trained");
    }
  }
}

void Adapters::wrap(Projection& projection, const std::vector<LinearSlot>& slots,
                    AdapterTensors& tensors) {
  for (const LinearSlot& slot : slots) {
    wrapped_.emplace_back(slot.module,
                          [slot] { return slot.projection->part_weight(slot.part, at::kFloat); });
  }
  const size_t before = model_.parameters().size();
  if (peft_.method == "lora") {
    wrap_low_rank(projection, slots, tensors);
  } else {
    projection.adapted.resize(projection.rows.size());
    for (const LinearSlot& slot : slots) {
      const LinearSite site{.module = slot.module,
                            .in_features = slot.in_features,
                            .out_features = slot.out_features};
      const std::shared_ptr<LinearAdapter> adapter = build_adapter(peft_, site, tensors);
      adapters_[slot.module] = adapter;
      projection.adapted[slot.part] = [adapter, context = context_](const at::Tensor& x,
                                                                    const BaseLinear& base) {
        return adapter->forward(x, base, *context);
      };
    }
  }
  for (size_t i = before; i < model_.parameters().size(); ++i) {
    keys_.emplace_back(model_.parameters()[i].name, model_.parameters()[i].name);
  }
}

void Adapters::wrap_low_rank(Projection& projection, const std::vector<LinearSlot>& slots,
                             AdapterTensors& tensors) {
  int64_t ranks = 0;
  std::vector<std::pair<LinearSite, int64_t>> sites;
  for (const LinearSlot& slot : slots) {
    sites.push_back({{.module = slot.module,
                      .in_features = slot.in_features,
                      .out_features = slot.out_features},
                     0});
    sites.back().second = lora_rank(peft_, sites.back().first, from_file_);
    ranks += sites.back().second;
  }
  auto low_rank = std::make_shared<LowRank>();
  low_rank->a = tensors.empty({ranks, slots.front().in_features});
  low_rank->dropout = peft_.lora_dropout.value();
  low_rank->context = context_;
  const bool dora = peft_.use_dora.value();
  if (dora) projection.adapted.resize(projection.rows.size());
  int64_t first = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    const auto& [site, rank] = sites[i];
    const auto lora =
        std::make_shared<Lora>(peft_, site, rank, low_rank->a.narrow(0, first, rank), tensors);
    adapters_[site.module] = lora;
    first += rank;
    if (dora) {
      projection.adapted[slots[i].part] = [lora, context = context_](const at::Tensor& x,
                                                                     const BaseLinear& base) {
        return lora->forward(x, base, *context);
      };
    } else {
      low_rank->parts.push_back(lora->part(slots[i].part));
    }
  }
  if (!dora) projection.low_rank = std::move(low_rank);
}

void Adapters::initialize(int64_t seed, std::span<const int32_t> prompt_text,
                          const StoredBase& stored) {
  const at::NoGradGuard off;
  if (prompt_) {
    prompt_->initialize(model_.embedding().weight,
                        parallel::seed_of(seed, "adapter/prompt_encoder"), prompt_text);
  }
  for (const auto& [module, own] : wrapped_) {
    // Starts are computed on the host, so that they are the same on every device.
    BaseWeight weight = [&own = own] { return own().cpu(); };
    if (stored && changes_base(peft_))
      weight = [&, &name = module] { return original_of(name, stored); };
    const at::Tensor changed =
        adapters_.at(module)->initialize(weight, parallel::seed_of(seed, "adapter/" + module));
    if (!changed.defined()) continue;
    // In place, through the parameter: its dtype rounds.
    for (Parameter& parameter : model_.parameters()) {
      if (parameter.name == module + ".weight") parameter.value.copy_(changed.to(parameter.dtype));
    }
  }
  if (embedding_)
    embedding_->initialize(parallel::seed_of(seed, "adapter/" + embedding_name_));
  if (token_rows_) token_rows_->initialize(model_.embedding().weight);
  if (head_rows_) head_rows_->initialize(model_.head().weight);
  refresh_values(model_);
  if (!changes_base(peft_)) return;
  for (const auto& [key, tensor] : tensors()) {
    if (is_lora_a(key) || is_lora_b(key)) start_[key] = tensor.clone();
  }
  if (starts_quantised(peft_)) start_.clear();
  for (const std::string& module : modules()) {
    start_[kPrefix + module + ".lora_A.weight"] = lora_of(module).start_a();
    start_[kPrefix + module + ".lora_B.weight"] = lora_of(module).start_b();
  }
}

const Lora& Adapters::lora_of(const std::string& module) const {
  return static_cast<const Lora&>(*adapters_.at(module));
}

void Adapters::start_from(const std::map<std::string, at::Tensor>& a) {
  const at::NoGradGuard off;
  for (const auto& [module, directions] : a) {
    at::Tensor master = lora_of(module).a().master;
    master.copy_(directions);
  }
  refresh_values(model_);
}

NamedTensors Adapters::start() const {
  NamedTensors tensors;
  for (const auto& [key, tensor] : start_) tensors.emplace_back(key, tensor);
  return tensors;
}

at::Tensor Adapters::original_of(const std::string& module, const StoredBase& stored) const {
  const std::vector<Parameter>& parameters = model_.parameters();
  const auto found = std::find_if(parameters.begin(), parameters.end(), [&](const Parameter& p) {
    return p.name == module + ".weight";
  });
  TEMPER_CHECK(found != parameters.end(), "an adapted layer has a weight: " + module);
  return stored(found->name).to(found->dtype).to(at::kFloat);
}

void Adapters::change_base_again(const StoredBase& stored) {
  const at::NoGradGuard off;
  for (const std::string& module : modules()) {
    const at::Tensor changed = lora_of(module).changed_base(original_of(module, stored));
    for (Parameter& parameter : model_.parameters()) {
      if (parameter.name == module + ".weight")
        parameter.value.copy_(changed.to(parameter.dtype));
    }
  }
}

NamedTensors Adapters::tensors() const {
  NamedTensors tensors;
  for (const auto& [key, name] : keys_) {
    for (const Parameter& parameter : model_.parameters()) {
      if (parameter.name != name) continue;
      tensors.emplace_back(key, in_stored_order(parameter.master.detach(), name, model_.config()));
    }
  }
  if (prompt_) tensors.emplace_back("prompt_embeddings", prompt_->stored());
  return tensors;
}

std::pair<recipes::Peft, NamedTensors> Adapters::plain() const {
  recipes::Peft peft = peft_;
  NamedTensors trained = tensors();
  if (start_.empty() || starts_quantised(peft_)) return {std::move(peft), std::move(trained)};
  // W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]: twice the rank, and alpha so that s stays.
  for (auto& [key, tensor] : trained) {
    if (is_lora_a(key)) tensor = at::cat({tensor, start_.at(key)}, 0);
    if (is_lora_b(key)) tensor = at::cat({tensor, -start_.at(key)}, 1);
  }
  peft.init_lora_weights = true;
  *peft.r *= 2;
  for (auto& [module, rank] : peft.rank_pattern) rank *= 2;
  *peft.lora_alpha *= 2;
  for (auto& [module, alpha] : peft.alpha_pattern) alpha *= 2;
  if (peft.use_rslora.value()) {
    // alpha / sqrt r would need sqrt 2 here, which is no whole number: B carries it instead.
    for (auto& [key, tensor] : trained) {
      if (is_lora_b(key)) tensor = tensor * std::sqrt(0.5);
    }
  }
  return {std::move(peft), std::move(trained)};
}

std::vector<std::string> Adapters::modules() const {
  std::vector<std::string> modules;
  for (const auto& [module, weight] : wrapped_) modules.push_back(module);
  return modules;
}

std::string Adapters::statement() const {
  int64_t trained = 0, all = 0;
  for (const Parameter& parameter : model_.parameters()) {
    all += parameter.value.numel();
    if (parameter.trainable()) trained += parameter.value.numel();
  }
  std::string base;
  for (const LinearSlot& slot : model_.linears()) {
    if (slot.projection->quantized.empty()) continue;
    all += slot.in_features * slot.out_features;
    const QuantKind kind = slot.projection->quantized[slot.part].kind;
    base = kind == QuantKind::kNf4   ? ", base in nf4"
           : kind == QuantKind::kFp4 ? ", base in fp4"
                                     : ", base in int8";
  }
  char counts[96];
  std::snprintf(counts, sizeof counts, "%.2fM of %.2fM parameters trained",
                static_cast<double>(trained) / 1e6, static_cast<double>(all) / 1e6);
  const std::string where =
      prompt_ ? "of " + std::to_string(*peft_.num_virtual_tokens) + " virtual tokens"
              : "on " + std::to_string(targets_.size()) + " modules";
  return peft_.method + " " + where + ": " + counts +
         ", kept and exported in " + std::string(recipes::name_of(peft_.dtype)) + base;
}

std::vector<std::string> Adapters::token_matrices() const {
  std::vector<std::string> names;
  if (embedding_ || token_rows_) names.push_back(embedding_name_ + ".weight");
  if (head_rows_) names.push_back(std::string(kHead) + ".weight");
  return names;
}

void Adapters::merge_tokens(const std::string& name, at::Tensor& weight,
                            at::ScalarType dtype) const {
  if (module_of(name) == kHead) {
    head_rows_->merge(weight);
    return;
  }
  if (embedding_) embedding_->merge(weight, dtype);
  if (token_rows_) token_rows_->merge(weight);
}

LoraModules Adapters::lora_factors(const std::string& where) const {
  if (peft_.method != "lora" || peft_.use_dora.value() || keys_.size() != 2 * wrapped_.size()) {
    throw UserError(where +
                    ": only plain LoRA adapters can be combined (method lora without use_dora, "
                    "lora_bias, trained biases, tokens or modules_to_save)");
  }
  const auto [peft, tensors] = plain();
  LoraModules modules;
  for (const auto& [key, tensor] : tensors) {
    const bool is_a = key.ends_with(".lora_A.weight");
    const std::string module =
        key.substr(std::string(kPrefix).size(), key.rfind(".lora_") - std::string(kPrefix).size());
    LoraFactors& factors = modules[module];
    (is_a ? factors.a : factors.b) = tensor;
    const int64_t rank = pattern_value(peft.rank_pattern, target_name(peft, module), *peft.r);
    factors.scaling = lora_scale(peft, module, rank);
  }
  return modules;
}

void Adapters::merge(const std::string& module, at::Tensor& weight, at::Tensor& bias,
                     at::ScalarType dtype) const {
  const auto found = adapters_.find(module);
  if (found == adapters_.end()) return;
  if (!start_.empty()) weight.copy_(lora_of(module).changed_base(weight));
  found->second->merge(weight, bias, dtype);
}

}  // namespace temper::trainer
