#include "trainer/adapters/prompt_learning.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "data/loader/batch.h"
#include "recipes/diagnostic.h"
#include "tests/trainer/llama_shape.h"
#include "tests/trainer/ops/compare.h"
#include "trainer/adapters/adapters.h"
#include "trainer/generation/kv_cache.h"

namespace temper::trainer {
namespace {

std::vector<int64_t> values(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.to(at::kLong);
  return {wide.data_ptr<int64_t>(), wide.data_ptr<int64_t>() + wide.numel()};
}

TEST(Longer, EveryDocumentBeginsWithTheVirtualTokens) {
  // Documents of 3, 1 and 2 tokens.
  const Longer longer = longer_batch(at::tensor({0, 1, 2, 0, 0, 1}, at::kLong),
                                     {.ends = at::tensor({0, 3, 4, 6}, at::kInt)}, 2);
  EXPECT_EQ(values(longer.documents.ends), (std::vector<int64_t>{0, 5, 8, 12}));
  EXPECT_EQ(values(longer.positions), (std::vector<int64_t>{0, 1, 2, 3, 4, 0, 1, 2, 0, 1, 2, 3}));
  EXPECT_EQ(values(longer.tokens), (std::vector<int64_t>{2, 3, 4, 7, 10, 11}));
  EXPECT_EQ(values(longer.virtual_tokens), (std::vector<int64_t>{0, 1, 5, 6, 8, 9}));
}

TEST(Longer, ABranchHasThoseOfItsPrefix) {
  // A prompt of 2 tokens, two completions of it, and a document by itself.
  const Longer longer = longer_batch(
      at::tensor({0, 1, 2, 2, 3, 0}, at::kLong),
      {at::tensor({0, 2, 3, 5, 6}, at::kInt), at::tensor({-1, 0, 0, -1}, at::kInt)}, 2);
  EXPECT_EQ(values(longer.documents.ends), (std::vector<int64_t>{0, 4, 5, 7, 10}));
  EXPECT_EQ(values(longer.positions), (std::vector<int64_t>{0, 1, 2, 3, 4, 4, 5, 0, 1, 2}));
  EXPECT_EQ(values(longer.tokens), (std::vector<int64_t>{2, 3, 4, 5, 6, 9}));
  EXPECT_EQ(values(longer.virtual_tokens), (std::vector<int64_t>{0, 1, 7, 8}));
}

TEST(Longer, RowsAreInsertedAndTakenAsAutogradDoesIt) {
  at::manual_seed(1);
  const Longer longer = longer_batch(at::tensor({0, 1, 2, 0, 0, 1}, at::kLong),
                                     {.ends = at::tensor({0, 3, 4, 6}, at::kInt)}, 2);
  const at::Tensor x = leaf(at::randn({6, 5}), at::kFloat),
                   rows = leaf(at::randn({2, 3}), at::kFloat);
  const at::Tensor ours = insert_rows(x, rows, longer);
  const at::Tensor x2 = exact(x), rows2 = exact(rows);
  const at::Tensor front = at::cat({at::zeros({2, 2}, at::kDouble), rows2}, 1);
  const at::Tensor theirs =
      at::cat({front, x2.narrow(0, 0, 3), front, x2.narrow(0, 3, 1), front, x2.narrow(0, 4, 2)});
  EXPECT_EQ(worst(ours, theirs), 0);
  EXPECT_TRUE(at::equal(take_tokens(ours, longer), x));
  const at::Tensor dy = at::randn({12, 5});
  // Through both, so that the tokens' part of the gradient comes twice.
  (ours * dy).sum().add(take_tokens(ours, longer).pow(2).sum()).backward();
  (theirs * dy.to(at::kDouble)).sum().add(x2.pow(2).sum()).backward();
  EXPECT_LT(worst(x.grad(), x2.grad()), 1e-6);
  EXPECT_LT(worst(rows.grad(), rows2.grad()), 1e-6);
}

ModelConfig tiny() {
  ModelConfig config = llama_of({});
  config.sliding_window = {0, 5};
  return config;
}

recipes::Peft peft_of(const std::string& method, bool projection = false) {
  recipes::Peft peft;
  peft.method = method;
  peft.num_virtual_tokens = 3;
  if (method == "prompt_tuning") peft.prompt_tuning_init = "RANDOM";
  if (method == "prefix_tuning") peft.prefix_projection = projection;
  if (method == "p_tuning") {
    peft.encoder_reparameterization_type = projection ? "LSTM" : "MLP";
    peft.encoder_num_layers = 2;
    peft.encoder_dropout = 0.0;
  }
  if (projection) peft.encoder_hidden_size = 6;
  return peft;
}

data::Batch batch_of(const std::vector<std::vector<int64_t>>& documents) {
  std::vector<int64_t> ids, positions, ends = {0};
  for (const std::vector<int64_t>& document : documents) {
    for (size_t i = 0; i < document.size(); ++i) {
      ids.push_back(document[i]);
      positions.push_back(static_cast<int64_t>(i));
    }
    ends.push_back(static_cast<int64_t>(ids.size()));
  }
  data::Batch batch;
  batch.token_ids = at::tensor(ids, at::kLong).unsqueeze(0);
  batch.positions = at::tensor(positions, at::kLong).unsqueeze(0);
  batch.document_ends = at::tensor(ends, at::kInt);
  return batch;
}

struct Prompted {
  explicit Prompted(const recipes::Peft& peft, int checkpointing = 0)
      : options{.activation_checkpointing = checkpointing, .frozen = true} {
    model = build_model(tiny(), options);
    draw_weights(*model, options, 3);
    const at::NoGradGuard off;
    for (Parameter& p : model->parameters()) p.value.mul_(p.value.dim() > 1 ? 10 : 1);
    adapters = std::make_unique<Adapters>(peft, *model, options);
    adapters->initialize(5);
  }
  at::Tensor hidden(const std::vector<std::vector<int64_t>>& documents) const {
    return model->hidden(batch_of(documents));
  }
  at::Tensor trained(const std::string& name) const {
    for (const Parameter& p : model->parameters())
      if (p.name == "prompt_encoder." + name) return p.value;
    throw std::out_of_range(name);
  }

  ModelOptions options;
  std::unique_ptr<Model> model;
  std::unique_ptr<Adapters> adapters;
};

struct Case {
  const char* method;
  bool projection;
};
class EveryMethod : public testing::TestWithParam<Case> {
 protected:
  recipes::Peft peft() const { return peft_of(GetParam().method, GetParam().projection); }
};
INSTANTIATE_TEST_SUITE_P(PromptLearning, EveryMethod,
                         testing::Values(Case{"prompt_tuning", false}, Case{"p_tuning", false},
                                         Case{"p_tuning", true}, Case{"prefix_tuning", false},
                                         Case{"prefix_tuning", true}));

TEST_P(EveryMethod, PackedDocumentsAreAsThoseAlone) {
  const Prompted prompted(peft());
  const at::NoGradGuard off;
  const at::Tensor packed = prompted.hidden({{1, 2, 3, 4, 5, 6, 7}, {8}, {9, 10, 11}});
  ASSERT_EQ(packed.sizes().vec(), (std::vector<int64_t>{1, 11, 16}));
  EXPECT_LT(worst(packed.narrow(1, 0, 7), prompted.hidden({{1, 2, 3, 4, 5, 6, 7}})), 1e-5);
  EXPECT_LT(worst(packed.narrow(1, 7, 1), prompted.hidden({{8}})), 1e-5);
  EXPECT_LT(worst(packed.narrow(1, 8, 3), prompted.hidden({{9, 10, 11}})), 1e-5);
}

TEST_P(EveryMethod, IsTheBaseModelWhenOff) {
  const Prompted prompted(peft());
  const at::NoGradGuard off;
  const at::Tensor with = prompted.hidden({{1, 2, 3}, {4, 5}});
  prompted.adapters->context().enabled = false;
  const at::Tensor without = prompted.hidden({{1, 2, 3}, {4, 5}});
  prompted.model->virtual_tokens() = nullptr;
  EXPECT_TRUE(at::equal(without, prompted.hidden({{1, 2, 3}, {4, 5}})));
  EXPECT_FALSE(at::equal(with, without));
}

TEST_P(EveryMethod, ACacheGivesTheSameHiddenStates) {
  const Prompted prompted(peft());
  const at::NoGradGuard off;
  const std::vector<int64_t> ids = {1, 2, 3, 4, 5, 6, 7, 8};
  KvCache cache({.layers = 2, .kv_heads = 2, .head_dim = 4});
  const int64_t one = cache.add(), other = cache.add();
  const auto next = [&](int64_t from, int64_t count) {
    const at::Tensor part = at::tensor(ids, at::kLong).narrow(0, from, count).repeat({2});
    const CachedRun runs[] = {{one, count}, {other, count}};
    return prompted.model->hidden_cached(part, runs, cache).view({2, count, -1});
  };
  const at::Tensor first = next(0, 5), second = next(5, 2), third = next(7, 1);
  EXPECT_EQ(cache.length(one), 11);
  EXPECT_EQ(cache.length(other), 11);
  const at::Tensor whole = prompted.hidden({ids}).repeat({2, 1, 1});
  EXPECT_LT(worst(at::cat({first, second, third}, 1), whole), 1e-5);
}

TEST_P(EveryMethod, GradientsAreTheSameWithFullCheckpointing) {
  const Prompted plain(peft()), again(peft(), 1);
  for (const Prompted* one : {&plain, &again})
    one->hidden({{1, 2, 3, 4}, {5, 6}}).sin().sum().backward();
  int compared = 0;
  for (size_t i = 0; i < plain.model->parameters().size(); ++i) {
    const Parameter& p = plain.model->parameters()[i];
    EXPECT_EQ(p.trainable(), p.name.starts_with("prompt_encoder.")) << p.name;
    if (!p.trainable()) continue;
    EXPECT_TRUE(at::equal(p.value.grad(), again.model->parameters()[i].value.grad())) << p.name;
    EXPECT_GT(p.value.grad().abs().max().item<double>(), 0) << p.name;
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

// Central differences in float32: what they are good for is a few per mille of the largest.
TEST_P(EveryMethod, GradientsAreThoseOfFiniteDifferences) {
  const Prompted prompted(peft());
  const std::vector<std::vector<int64_t>> documents = {{1, 2, 3, 4, 5, 6, 7}, {8, 9}};
  const auto loss = [&] { return prompted.hidden(documents).to(at::kDouble).sin().sum(); };
  loss().backward();
  const at::NoGradGuard off;
  const double here = loss().item<double>();
  int compared = 0;
  for (const Parameter& p : prompted.model->parameters()) {
    if (!p.trainable()) continue;
    at::Tensor flat = p.value.view({-1});
    const at::Tensor gradient = p.value.grad().view({-1});
    const double scale = gradient.abs().max().item<double>();
    for (int64_t i = 0; i < flat.numel(); i += flat.numel() / 5 + 1) {
      const double start = flat[i].item<double>(), h = 5e-3;
      flat[i] = start + h;
      const double above = loss().item<double>();
      flat[i] = start - h;
      const double below = loss().item<double>();
      flat[i] = start;
      const double tolerance = 1e-2 * scale + 1e-3;
      // Where a ReLU bends between the two there is no slope to compare with.
      if (std::abs((above - here) - (here - below)) / h > tolerance) continue;
      EXPECT_NEAR(gradient[i].item<double>(), (above - below) / (2 * h), tolerance)
          << p.name << " " << i;
      ++compared;
    }
  }
  EXPECT_GE(compared, 5);
}

TEST(PromptLearning, SaysHowManyTokensItIsOf) {
  EXPECT_TRUE(Prompted(peft_of("prompt_tuning")).adapters->statement().starts_with(
      "prompt_tuning of 3 virtual tokens: "));
}

TEST(PromptTuning, APromptOfWordEmbeddingsIsThoseWordsInFrontOfTheText) {
  const Prompted prompted(peft_of("prompt_tuning"));
  const at::NoGradGuard off;
  const std::vector<int32_t> text = {7, 11};  // repeated to three
  recipes::Peft peft = peft_of("prompt_tuning");
  peft.prompt_tuning_init = "TEXT";
  const Prompted from_text(peft);
  from_text.adapters->initialize(5, text);
  const at::Tensor found = from_text.hidden({{1, 2, 3, 4}});
  from_text.model->virtual_tokens() = nullptr;
  const at::Tensor written = from_text.hidden({{7, 11, 7, 1, 2, 3, 4}});
  EXPECT_LT(worst(found, written.narrow(1, 3, 4)), 1e-6);
}

TEST(PromptTuning, SampledWordsAreRowsOfTheEmbedding) {
  recipes::Peft peft = peft_of("prompt_tuning");
  peft.prompt_tuning_init = "SAMPLE_VOCAB";
  const Prompted prompted(peft);
  const at::Tensor words = prompted.model->embedding().weight.detach();
  const at::Tensor p = prompted.trained("embedding.weight").detach();
  const at::Tensor same = p.unsqueeze(1).eq(words.unsqueeze(0)).all(2).any(1);
  EXPECT_TRUE(same.all().item<bool>());
}

TEST(PTuning, TheLstmIsThatOfTorch) {
  const Prompted prompted(peft_of("p_tuning", true));
  const at::NoGradGuard off;
  std::vector<at::Tensor> tensors;
  for (const char* end : {"_l0", "_l0_reverse", "_l1", "_l1_reverse"}) {
    for (const char* name : {"weight_ih", "weight_hh", "bias_ih", "bias_hh"}) {
      tensors.push_back(prompted.trained(std::string("lstm_head.") + name + end));
    }
  }
  const at::Tensor start = at::zeros({4, 1, 6});
  const at::Tensor y =
      std::get<0>(at::lstm(prompted.trained("embedding.weight").unsqueeze(0), {start, start},
                           tensors, true, 2, 0.0, false, true, true));
  const at::Tensor inner = at::relu(
      at::linear(y, prompted.trained("mlp_head.0.weight"), prompted.trained("mlp_head.0.bias")));
  const at::Tensor p =
      at::linear(inner, prompted.trained("mlp_head.2.weight"), prompted.trained("mlp_head.2.bias"));
  const NamedTensors stored = prompted.adapters->tensors();
  ASSERT_EQ(stored.size(), 1u);
  EXPECT_EQ(stored[0].first, "prompt_embeddings");
  EXPECT_LT(worst(stored[0].second, p.squeeze(0)), 1e-6);
}

TEST(PrefixTuning, AZeroStartHasKeysAndValuesOfZero) {
  for (const bool projection : {false, true}) {
    recipes::Peft peft = peft_of("prefix_tuning", projection);
    peft.init_weights = "zero";
    const NamedTensors stored = Prompted(peft).adapters->tensors();
    EXPECT_EQ(stored[0].second.sizes().vec(), (std::vector<int64_t>{3, 2 * 2 * 2 * 4}));
    EXPECT_EQ(stored[0].second.abs().max().item<float>(), 0.0f);
  }
}

TEST(PromptLearning, WhatIsStoredGoesOnWithoutItsEncoder) {
  for (const char* method : {"p_tuning", "prefix_tuning"}) {
    const Prompted made(peft_of(method, true));
    const Prompted goes_on(without_encoder(made.adapters->peft()));
    const at::NoGradGuard off;
    goes_on.adapters->tensors()[0].second.copy_(made.adapters->tensors()[0].second);
    EXPECT_TRUE(at::equal(made.hidden({{1, 2}, {3}}), goes_on.hidden({{1, 2}, {3}}))) << method;
  }
}

TEST(PromptLearning, IsPlannedOnTheMetaDevice) {
  const ModelOptions options{.frozen = true, .device = at::kMeta};
  const auto model = build_model(tiny(), options);
  const Adapters adapters(peft_of("p_tuning", true), *model, options);
  int64_t trainable = 0;
  for (const Parameter& p : model->parameters()) trainable += p.trainable() ? p.value.numel() : 0;
  // E; the LSTM's two layers, each both ways; the two linear layers.
  EXPECT_EQ(trainable, 3 * 16 + 2 * (24 * (16 + 6) + 48) + 2 * (24 * (12 + 6) + 48) +
                           (12 * 12 + 12) + (12 * 16 + 16));
}

TEST(PromptLearning, HasNothingToMerge) {
  const Prompted prompted(peft_of("prompt_tuning"));
  EXPECT_THROW(merged_weights(*prompted.model, *prompted.adapters, {}, at::kFloat), UserError);
}

}  // namespace
}  // namespace temper::trainer
