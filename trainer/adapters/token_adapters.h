#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "trainer/adapters/adapter.h"
#include "trainer/models/model.h"

/// What adapters do to the rows of tokens, as PEFT 0.21.2 does it: LoRA of the embedding, and
/// single rows trained by themselves (trainable_token_indices). LoRA of the output head is
/// lora.h's.
namespace temper::trainer {

/// LoRA of the embedding: row i is W_i + s (A_:,i)^T B^T. A starts at zero, B at N(0, 1). Saved:
/// lora_embedding_A [R, V], lora_embedding_B [D, R].
class EmbeddingLora {
 public:
  /// Sits on model.embedding(). Throws UserError for use_dora and lora_bias.
  EmbeddingLora(const recipes::Peft& peft, Model& model,
                std::shared_ptr<const AdapterContext> context, AdapterTensors& tensors,
                bool from_file);
  void initialize(uint64_t seed);
  /// Into `weight` [V, D] float32; the update is rounded to `dtype` first, as PEFT does here.
  void merge(const at::Tensor& weight, at::ScalarType dtype) const;

 private:
  bool from_zero_;
  double scale_;
  Parameter a_, b_;
};

/// Rows of tokens in place of a frozen matrix's own. Saved: token_adapter.trainable_tokens_delta
/// [n, D], whole rows, whatever its name says.
class TokenRows {
 public:
  /// `module`: "model.embed_tokens". Throws UserError for an id that `weight` [V, D] lacks or that
  /// stands there twice.
  TokenRows(const std::string& module, const std::vector<int64_t>& ids, const at::Tensor& weight,
            std::shared_ptr<const AdapterContext> context, AdapterTensors& tensors);
  const std::shared_ptr<const TrainedRows>& rows() const { return rows_; }
  /// Copies of `weight`'s rows.
  void initialize(const at::Tensor& weight);
  void merge(const at::Tensor& weight) const;

 private:
  std::shared_ptr<const TrainedRows> rows_;
  Parameter values_;
};

}  // namespace temper::trainer
