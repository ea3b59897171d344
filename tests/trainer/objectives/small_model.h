#pragma once

#include <cmath>
#include <memory>

#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "data/loader/collate.h"
#include "tests/trainer/llama_shape.h"
#include "tests/trainer/objectives/known_metrics.h"
#include "trainer/models/model.h"
#include "trainer/objectives/objective.h"
#include "trainer/objectives/reference.h"

/// A decoder of two layers with 20 tokens, and rows for it.
namespace temper::trainer {

inline recipes::Objective objective_of(const std::string& kind) {
  recipes::Objective objective;
  objective.kind = kind;
  return objective;
}

inline ModelConfig small_config() {
  ModelConfig config = llama_of({.hidden = 8, .mlp = 8, .heads = 2, .kv_heads = 1});
  config.initializer_range = 0.5;  // so that probabilities differ
  return config;
}

inline std::unique_ptr<Model> small_model(int64_t seed, const ModelConfig& config = small_config(),
                                          const ModelOptions& options = {}) {
  auto model = build_model(config, options);
  draw_weights(*model, options, seed);
  return model;
}

inline data::Example document(const std::vector<int32_t>& prompt,
                              const std::vector<int32_t>& completion) {
  data::Example example{prompt, std::vector<uint8_t>(prompt.size(), 0)};
  example.ids.insert(example.ids.end(), completion.begin(), completion.end());
  example.supervised.resize(example.ids.size(), 1);
  return example;
}

/// Pairs of different lengths, some of whose completions begin alike.
inline std::vector<data::TokenizedRow> pairs() {
  return {{.documents = {document({1, 5, 6}, {7, 8, 2}), document({1, 5, 6}, {7, 9, 9, 4, 2})},
           .columns = {}},
          {.documents = {document({1, 3}, {11, 2}), document({1, 3}, {12, 2})}, .columns = {}},
          {.documents = {document({1}, {13, 14, 15, 2}), document({1}, {2})}, .columns = {}},
          {.documents = {document({1, 17, 18, 19}, {3, 4, 2}), document({1, 17, 18, 19}, {5, 2})},
           .columns = {}}};
}

/// Completions that are good or bad.
inline std::vector<data::TokenizedRow> rated() {
  return {{.documents = {document({1, 5, 6}, {7, 8, 2})}, .columns = R"({"label": true})"},
          {.documents = {document({1, 3}, {11, 2})}, .columns = R"({"label": 0})"},
          {.documents = {document({1}, {13, 14, 15, 2})}, .columns = R"({"label": false})"},
          {.documents = {document({1, 17}, {3, 2})}, .columns = R"({"label": 1})"}};
}

/// All gradients in one vector, which are then gone.
inline at::Tensor take_gradients(Model& model) {
  std::vector<at::Tensor> all;
  for (Parameter& parameter : model.parameters()) {
    if (parameter.value.grad().defined()) {
      all.push_back(parameter.value.grad().flatten().clone());
      parameter.value.mutable_grad().reset();
    }
  }
  return at::cat(all);
}

struct Computed {
  double loss = 0;  // a row
  double count = 0;
  at::Tensor gradients;
  std::vector<MetricSum> metrics;
};

/// The objective over micro-batches of the given rows, with gradients.
inline Computed compute(Objective& objective, Model& model, Reference* reference,
                        const std::vector<std::vector<data::TokenizedRow>>& micro_batches,
                        bool share_prefixes = true) {
  data::RowLayout layout = objective.row_layout().value();
  layout.share_prefixes = share_prefixes;
  data::StepBatches batches;
  for (const auto& rows : micro_batches) {
    batches.micro_batches.push_back(data::collate_rows(rows, layout));
  }
  const auto communicator = parallel::make_solo_communicator();
  {
    const at::NoGradGuard off;
    objective.prepare(batches, {.model = model,
                                .reference = reference,
                                .communicator = *communicator,
                                .step = 1});
  }
  Computed computed;
  for (const std::string& name : objective.metric_names()) computed.metrics.push_back({.name = name});
  for (const data::Batch& batch : batches.micro_batches) {
    const LossTerms terms = objective.loss(model, batch);
    terms.sum.backward();
    computed.loss += terms.sum.item<double>();
    computed.count += terms.count;
    const std::vector<MetricSum> metrics = known_metrics(terms);
    for (size_t i = 0; i < metrics.size(); ++i) {
      EXPECT_EQ(metrics[i].name, computed.metrics[i].name);
      computed.metrics[i].numerator += metrics[i].numerator;
      computed.metrics[i].denominator += metrics[i].denominator;
    }
  }
  computed.loss /= computed.count;
  computed.gradients = take_gradients(model) / computed.count;
  return computed;
}

inline double metric(const Computed& computed, const std::string& name) {
  for (const MetricSum& metric : computed.metrics) {
    if (metric.name == name) return metric.numerator / metric.denominator;
  }
  return std::nan("");
}

inline double apart(const at::Tensor& a, const at::Tensor& b) {
  return (a - b).abs().max().item<double>();
}

}  // namespace temper::trainer
