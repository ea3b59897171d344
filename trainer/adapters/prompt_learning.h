#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/adapters/adapter.h"

/// What prompt_tuning, p_tuning and prefix_tuning train, and how the virtual tokens' vectors
/// (models/virtual_tokens.h) come of it. With P [n, D], or of a prefix [n, 2 layers K E]:
///
///     prompt_tuning, prefix_tuning        P = E
///     p_tuning, MLP                       P = W3 relu(W2 relu(W1 E))
///     p_tuning, LSTM                      P = W2 relu(W1 lstm(E)), the LSTM running both ways
///     prefix_tuning, prefix_projection    P = W2 tanh(W1 E)
///
/// where each W has a bias. Files hold P alone ("prompt_embeddings"), as PEFT's do, so an encoder
/// lasts as long as its run.
namespace temper::trainer {

/// Whether `method` is one of the three.
bool is_prompt_learning(const std::string& method);

/// The method that goes on from a file: P itself is trained, without the encoder that made it. What
/// was p_tuning becomes prompt_tuning. Other methods stay as they are.
recipes::Peft without_encoder(recipes::Peft peft);

class PromptLearning {
 public:
  /// Appends its tensors, uninitialised, to the model's parameters under PEFT's names
  /// ("prompt_encoder.embedding.weight", "prompt_encoder.mlp_head.0.weight", ...) and stands the
  /// virtual tokens in front of the model's documents.
  PromptLearning(const recipes::Peft& peft, Model& model, AdapterTensors& tensors,
                 std::shared_ptr<const AdapterContext> context);
  PromptLearning(const PromptLearning&) = delete;
  PromptLearning& operator=(const PromptLearning&) = delete;

  /// Draws as PEFT does, from `seed` and each tensor's name. `text`: the tokens of
  /// prompt_tuning_init_text, which are repeated or cut to n.
  void initialize(const at::Tensor& word_embeddings, uint64_t seed, std::span<const int32_t> text);

  /// P [n, ...], float32, as a file holds it. Without an encoder it is the master itself.
  at::Tensor stored() const;

 private:
  Parameter add(const std::string& name, at::IntArrayRef shape, AdapterTensors& tensors,
                Model& model);
  void add_linear(const std::string& name, int64_t inputs, int64_t outputs, AdapterTensors& tensors,
                  Model& model);
  void add_lstm(int64_t inputs, int64_t hidden, AdapterTensors& tensors, Model& model);
  at::Tensor lstm(const at::Tensor& x, const AdapterContext& context) const;
  at::Tensor vectors(const AdapterContext& context) const;

  recipes::Peft peft_;
  Parameter embedding_;
  std::vector<Parameter> linears_;  // weight, bias, weight, bias, ...
  // By layer: the four tensors of the way forward, then those of the way back.
  std::vector<std::vector<Parameter>> lstm_;
};

}  // namespace temper::trainer
