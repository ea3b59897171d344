#include "trainer/adapters/token_adapters.h"

#include <algorithm>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "recipes/diagnostic.h"
#include "trainer/adapters/lora.h"
#include "trainer/adapters/parts.h"
#include "trainer/models/decoder_names.h"

namespace temper::trainer {

EmbeddingLora::EmbeddingLora(const recipes::Peft& peft, Model& model,
                             std::shared_ptr<const AdapterContext> context, AdapterTensors& tensors,
                             bool from_file)
    : from_zero_(peft.init_lora_weights.value() != recipes::BoolOrWord(false)) {
  if (peft.use_dora.value()) {
    throw UserError(
        "peft.use_dora: not on the embedding: leave embed_tokens out of "
        "peft.target_modules, or peft.use_dora");
  }
  if (peft.lora_bias.value()) {
    throw UserError(
        "peft.lora_bias: an embedding has none (PEFT refuses it too): leave "
        "embed_tokens out of peft.target_modules, or peft.lora_bias");
  }
  Embedding& embedding = model.embedding();
  const LinearSite site{.module = names_of(model.config()).embedding,
                        .in_features = embedding.weight.size(0),
                        .out_features = embedding.weight.size(1)};
  const int64_t rank = lora_rank(peft, site, from_file);
  scale_ = lora_scale(peft, site.module, rank);
  a_ = tensors.add(site, "lora_embedding_A", {rank, site.in_features});
  b_ = tensors.add(site, "lora_embedding_B", {site.out_features, rank});
  embedding.low_rank = std::make_shared<LowRankRows>(
      LowRankRows{.a = a_.value, .b = b_.value, .scale = scale_, .context = std::move(context)});
}

void EmbeddingLora::initialize(uint64_t seed) {
  if (from_zero_) {
    fill_master(a_, 0);
  } else {
    draw_normal(a_, 0, 1, seed, "lora_embedding_A");
  }
  draw_normal(b_, 0, 1, seed, "lora_embedding_B");
}

void EmbeddingLora::merge(const at::Tensor& weight, at::ScalarType dtype) const {
  const at::NoGradGuard off;
  const at::Tensor delta = at::mm(b_.master.detach(), a_.master.detach()).mul_(scale_);
  weight.add_(delta.t().to(dtype));
}

TokenRows::TokenRows(const std::string& module, const std::vector<int64_t>& ids,
                     const at::Tensor& weight, std::shared_ptr<const AdapterContext> context,
                     AdapterTensors& tensors) {
  const std::string key = "peft.trainable_token_indices: ";
  std::vector<int64_t> sorted = ids;
  std::sort(sorted.begin(), sorted.end());
  TEMPER_CHECK(!sorted.empty(), "rows of no tokens");
  if (sorted.front() < 0 || sorted.back() >= weight.size(0)) {
    throw UserError(key + std::to_string(sorted.front() < 0 ? sorted.front() : sorted.back()) +
                    " is no token of this model, whose vocab_size is " +
                    std::to_string(weight.size(0)));
  }
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end()) {
    throw UserError(key + std::to_string(*twice) + " stands there twice");
  }
  values_ = tensors.add({.module = module}, "token_adapter.trainable_tokens_delta",
                        {static_cast<int64_t>(ids.size()), weight.size(1)});
  rows_ = std::make_shared<TrainedRows>(TrainedRows{
      .ids = at::tensor(ids, at::kLong).to(weight.device()), .values = values_.value, .context = std::move(context)});
}

void TokenRows::initialize(const at::Tensor& weight) {
  const at::NoGradGuard off;
  values_.master.copy_(weight.index_select(0, rows_->ids));
}

void TokenRows::merge(const at::Tensor& weight) const {
  const at::NoGradGuard off;
  weight.index_copy_(0, rows_->ids, values_.master.detach());
}

}  // namespace temper::trainer
