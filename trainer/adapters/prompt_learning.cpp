#include "trainer/adapters/prompt_learning.h"

#include <cmath>
#include <utility>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>

#include "parallel/seed.h"
#include "recipes/diagnostic.h"
#include "trainer/adapters/parts.h"

namespace temper::trainer {
namespace {

const std::string kEncoder = "prompt_encoder.";

bool starts_at_zero(const recipes::Peft& peft) { return peft.init_weights.has_value(); }

// n tokens of the vocabulary, repeated or cut.
at::Tensor fitted(std::span<const int32_t> text, int64_t n) {
  at::Tensor ids = at::empty({n}, at::kLong);
  for (int64_t i = 0; i < n; ++i) {
    ids.data_ptr<int64_t>()[i] = text[static_cast<size_t>(i) % text.size()];
  }
  return ids;
}

}  // namespace

bool is_prompt_learning(const std::string& method) {
  return method == "prompt_tuning" || method == "p_tuning" || method == "prefix_tuning";
}

recipes::Peft without_encoder(recipes::Peft peft) {
  if (!is_prompt_learning(peft.method)) return peft;
  if (peft.method == "p_tuning") {
    peft.method = "prompt_tuning";
    peft.prompt_tuning_init = "RANDOM";
    peft.encoder_reparameterization_type.reset();
    peft.encoder_num_layers.reset();
    peft.encoder_dropout.reset();
  }
  if (peft.method == "prefix_tuning") peft.prefix_projection = false;
  peft.encoder_hidden_size.reset();
  return peft;
}

PromptLearning::PromptLearning(const recipes::Peft& peft, Model& model, AdapterTensors& tensors,
                               std::shared_ptr<const AdapterContext> context)
    : peft_(peft) {
  const ModelConfig& config = model.config();
  const int64_t n = peft.num_virtual_tokens.value();
  const bool prefix = peft.method == "prefix_tuning";
  const int64_t width = prefix ? config.num_key_value_heads * config.head_dim : config.hidden_size;
  const int64_t columns = prefix ? 2 * config.num_hidden_layers * width : width;
  const int64_t hidden = peft.encoder_hidden_size.value_or(width);
  if (prefix && *peft.prefix_projection) {
    embedding_ = add("embedding.weight", {n, width}, tensors, model);
    add_linear("transform.0", width, hidden, tensors, model);
    add_linear("transform.2", hidden, columns, tensors, model);
  } else {
    embedding_ = add("embedding.weight", {n, columns}, tensors, model);
  }
  if (peft.method == "p_tuning") {
    if (peft.encoder_reparameterization_type == "LSTM") {
      add_lstm(width, hidden, tensors, model);
      add_linear("mlp_head.0", 2 * hidden, 2 * hidden, tensors, model);
      add_linear("mlp_head.2", 2 * hidden, width, tensors, model);
    } else {
      add_linear("mlp_head.0", width, hidden, tensors, model);
      add_linear("mlp_head.2", hidden, hidden, tensors, model);
      add_linear("mlp_head.4", hidden, width, tensors, model);
    }
  }
  model.virtual_tokens() = std::make_shared<VirtualTokens>(
      VirtualTokens{.count = n,
                    .prefix = prefix,
                    .vectors = [this, context] { return vectors(*context); },
                    .context = context});
}

// In float32 whatever the model computes in, as PEFT does it.
Parameter PromptLearning::add(const std::string& name, at::IntArrayRef shape,
                              AdapterTensors& tensors, Model& model) {
  const Parameter parameter =
      tensors.add(kEncoder + name, tensors.empty(shape, Precision::kFloat32));
  model.parameters().back().decay = shape.size() > 1;
  return parameter;
}

void PromptLearning::add_linear(const std::string& name, int64_t inputs, int64_t outputs,
                                AdapterTensors& tensors, Model& model) {
  linears_.push_back(add(name + ".weight", {outputs, inputs}, tensors, model));
  linears_.push_back(add(name + ".bias", {outputs}, tensors, model));
}

void PromptLearning::add_lstm(int64_t inputs, int64_t hidden, AdapterTensors& tensors,
                              Model& model) {
  for (int64_t layer = 0; layer < peft_.encoder_num_layers.value(); ++layer) {
    const std::string end = "_l" + std::to_string(layer);
    lstm_.emplace_back();
    for (const std::string& way : {end, end + "_reverse"}) {
      const std::string head = "lstm_head.";
      for (Parameter& tensor : std::vector<Parameter>{
               add(head + "weight_ih" + way, {4 * hidden, inputs}, tensors, model),
               add(head + "weight_hh" + way, {4 * hidden, hidden}, tensors, model),
               add(head + "bias_ih" + way, {4 * hidden}, tensors, model),
               add(head + "bias_hh" + way, {4 * hidden}, tensors, model)}) {
        lstm_.back().push_back(std::move(tensor));
      }
    }
    inputs = 2 * hidden;
  }
}

void PromptLearning::initialize(const at::Tensor& word_embeddings, uint64_t seed,
                                std::span<const int32_t> text) {
  const at::NoGradGuard off;
  const int64_t n = peft_.num_virtual_tokens.value();
  if (peft_.prompt_tuning_init == "SAMPLE_VOCAB") {
    at::Generator generator =
        at::detail::createCPUGenerator(parallel::seed_of(static_cast<int64_t>(seed), "tokens"));
    const at::Tensor ids = at::randint(0, word_embeddings.size(0), {n}, generator, at::kLong);
    embedding_.master.copy_(word_embeddings.index_select(0, ids.to(word_embeddings.device())));
  } else if (peft_.prompt_tuning_init == "TEXT" && !text.empty()) {
    embedding_.master.copy_(
        word_embeddings.index_select(0, fitted(text, n).to(word_embeddings.device())));
  } else {
    draw_normal(embedding_, 0, 1, seed, embedding_.name);
  }
  for (size_t i = 0; i < linears_.size(); ++i) {
    const Parameter& weight = linears_[i - i % 2];  // the bias has its bound
    draw_uniform(linears_[i], 1 / std::sqrt(static_cast<double>(weight.master.size(1))), seed,
                 linears_[i].name);
  }
  for (const std::vector<Parameter>& layer : lstm_) {
    const double hidden = static_cast<double>(layer.front().master.size(0) / 4);
    for (const Parameter& tensor : layer) {
      draw_uniform(tensor, 1 / std::sqrt(hidden), seed, tensor.name);
    }
  }
  if (!starts_at_zero(peft_)) return;
  if (linears_.empty()) {
    fill_master(embedding_, 0);
  } else {
    fill_master(linears_[linears_.size() - 2], 0);
    fill_master(linears_.back(), 0);
  }
}

// Layer by layer, so that dropout between them draws as every other does here.
at::Tensor PromptLearning::lstm(const at::Tensor& x, const AdapterContext& context) const {
  at::Tensor y = x;
  for (size_t layer = 0; layer < lstm_.size(); ++layer) {
    if (layer > 0) {
      y = adapter_dropout(y, peft_.encoder_dropout.value(),
                          kEncoder + "lstm_head." + std::to_string(layer), context);
    }
    std::vector<at::Tensor> tensors;
    for (const Parameter& tensor : lstm_[layer]) tensors.push_back(tensor.value);
    const at::Tensor start = at::zeros({2, 1, tensors[0].size(0) / 4}, x.options());
    y = std::get<0>(at::lstm(y.unsqueeze(0), {start, start}, tensors, /*has_biases=*/true,
                             /*num_layers=*/1, /*dropout=*/0, /*train=*/false,
                             /*bidirectional=*/true, /*batch_first=*/true))
            .squeeze(0);
  }
  return y;
}

at::Tensor PromptLearning::vectors(const AdapterContext& context) const {
  at::Tensor p = embedding_.value;
  if (!lstm_.empty()) p = lstm(p, context);
  for (size_t i = 0; i < linears_.size(); i += 2) {
    if (i > 0) p = peft_.method == "prefix_tuning" ? at::tanh(p) : at::relu(p);
    p = at::linear(p, linears_[i].value, linears_[i + 1].value);
  }
  return p;
}

at::Tensor PromptLearning::stored() const {
  if (linears_.empty()) return embedding_.master.detach();
  const at::NoGradGuard off;
  return vectors(AdapterContext{});
}

}  // namespace temper::trainer
