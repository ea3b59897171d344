// The real pretrained Llama in shared/models against the values that the reference implementation
// gave for it.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "data/io/json.h"
#include "data/loader/batch.h"
#include "trainer/generation/kv_cache.h"
#include "trainer/models/model.h"
#include "trainer/objectives/objective.h"

namespace temper::trainer {
namespace {

std::filesystem::path model_directory() {
  if (const char* shared = std::getenv("TEMPER_SHARED"))
    return std::filesystem::path(shared) / "models/stories260K";
  const char* source = std::getenv("TEMPER_SOURCE_DIR");
  return std::filesystem::path(source != nullptr ? source : ".") / "../shared/models/stories260K";
}

struct Stories : testing::Test {
  void SetUp() override {
    if (!std::filesystem::exists(model_directory() / "reference.json"))
      GTEST_SKIP() << "no " << model_directory();
    reference = data::read_json(model_directory() / "reference.json");
    model = build_model(load_config(model_directory()), options);
    load_weights(*model, options, model_directory());
  }

  data::Json reference;
  ModelOptions options;
  std::unique_ptr<Model> model;
};

// One document, every next token a target.
data::Batch batch_of(const std::vector<int64_t>& ids) {
  const auto length = static_cast<int64_t>(ids.size());
  data::Batch batch;
  batch.token_ids = at::tensor(ids, at::kLong).view({1, length});
  batch.labels = at::full({1, length}, -100, at::kLong);
  batch.labels.narrow(1, 0, length - 1).copy_(batch.token_ids.narrow(1, 1, length - 1));
  batch.positions = at::arange(length, at::kLong).view({1, length});
  batch.document_ends = at::tensor({int64_t{0}, length}, at::kInt);
  batch.rows = 1;
  batch.input_tokens = length;
  batch.supervised = length - 1;
  return batch;
}

TEST_F(Stories, LossAndGradientNormsEqualTheReference) {
  const data::Batch batch = batch_of(reference["loss"]["ids"].get<std::vector<int64_t>>());
  const auto objective = build_objective({});
  const LossTerms terms = objective->loss(*model, batch);
  EXPECT_NEAR(terms.sum.item<double>() / terms.count, reference["loss"]["mean_loss"].get<double>(),
              2e-6);
  terms.sum.backward();
  for (const Parameter& parameter : model->parameters()) {
    const double expected = reference["grad_l2"][parameter.name].get<double>();
    const double found = parameter.value.grad().norm().item<double>() / terms.count;
    EXPECT_NEAR(found, expected, 2e-5 * expected) << parameter.name;
  }
}

TEST_F(Stories, GreedyContinuationsEqualTheReferenceWithAndWithoutCache) {
  const at::NoGradGuard off;
  const ModelConfig& config = model->config();
  for (const data::Json& text : reference["greedy"]) {
    std::vector<int64_t> ids = text["ids"].get<std::vector<int64_t>>();
    const auto expected = text["greedy"].get<std::vector<int64_t>>();
    KvCache cache({.layers = config.num_hidden_layers,
                   .kv_heads = config.num_key_value_heads,
                   .head_dim = config.head_dim});
    const int64_t sequence = cache.add();
    at::Tensor next = at::tensor(ids, at::kLong);
    for (size_t i = 0; i < expected.size(); ++i) {
      const CachedRun run{sequence, next.numel()};
      const at::Tensor cached = model->hidden_cached(next, {&run, 1}, cache).narrow(0, next.numel() - 1, 1);
      const at::Tensor whole = model->hidden(batch_of(ids)).select(1, -1);
      EXPECT_TRUE(at::equal(cached, whole)) << "token " << i;
      const int64_t token = head_logits(cached, model->head()).argmax(-1).item<int64_t>();
      ASSERT_EQ(token, expected[i])
          << "token " << i << " after '" << text["prompt"].get<std::string>() << "'";
      ids.push_back(token);
      next = at::full({1}, token, at::kLong);
      if (i > 60) break;  // the rest costs time and shows nothing new
    }
  }
}

}  // namespace
}  // namespace temper::trainer
