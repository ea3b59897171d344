#include "trainer/adapters/token_adapters.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "recipes/peft_methods.h"
#include "tests/trainer/llama_shape.h"
#include "trainer/adapters/adapters.h"

namespace temper::trainer {
namespace {

using Names = std::vector<std::string>;

// A decoder of one layer with 20 tokens, under an adapter of rank 2.
struct Adapted {
  explicit Adapted(bool tied = false) {
    config = llama_of(
        {.hidden = 8, .mlp = 8, .layers = 1, .heads = 1, .kv_heads = 1, .context = 16});
    config.tie_word_embeddings = tied;
    recipe.peft.method = "lora";
    recipes::fill_in_peft(recipe);
    recipe.peft.r = recipe.peft.lora_alpha = 2;
  }
  Adapters& build() {
    model = build_model(config, options);
    draw_weights(*model, options, 1);
    adapters = std::make_unique<Adapters>(recipe.peft, *model, options);
    adapters->initialize(1);
    return *adapters;
  }
  std::string refusal() {
    try {
      build().check_mergeable();
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
  Names keys() {
    Names names;
    for (const auto& [key, tensor] : build().tensors()) names.push_back(key);
    return names;
  }

  ModelConfig config;
  recipes::Recipe recipe;
  recipes::Peft& peft = recipe.peft;
  ModelOptions options{.frozen = true};
  std::unique_ptr<Model> model;
  std::unique_ptr<Adapters> adapters;
};

TEST(TokenAdapters, KeysAreThoseOfPeft) {
  Adapted a;
  a.peft.target_modules = Names{"embed_tokens", "lm_head"};
  EXPECT_EQ(a.keys(), (Names{"base_model.model.lm_head.lora_A.weight",
                             "base_model.model.lm_head.lora_B.weight",
                             "base_model.model.model.embed_tokens.lora_embedding_A",
                             "base_model.model.model.embed_tokens.lora_embedding_B"}));
  ASSERT_EQ(a.adapters->saved_base().size(), 2u);
  EXPECT_EQ(a.adapters->saved_base()[0].first,
            "base_model.model.model.embed_tokens.base_layer.weight");
  EXPECT_EQ(a.adapters->saved_base()[1].first, "base_model.model.lm_head.base_layer.weight");
  // PEFT does not see that a whole name means the embedding.
  a.peft.target_modules = Names{"model.embed_tokens"};
  EXPECT_TRUE(a.build().saved_base().empty());
}

TEST(TokenAdapters, RowsStartAsCopiesAndReplaceTheirOwnWhenMerged) {
  for (const bool tied : {false, true}) {
    Adapted a(tied);
    a.peft.target_modules = Names{"q_proj"};
    a.peft.trainable_token_indices = std::vector<int64_t>{7, 3};
    Adapters& adapters = a.build();
    const at::NoGradGuard off;
    const at::Tensor weight = a.model->embedding().weight.clone();
    for (const auto& [key, tensor] : adapters.tensors()) {
      if (!key.ends_with("trainable_tokens_delta")) continue;
      EXPECT_EQ(key, "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta");
      EXPECT_TRUE(at::equal(tensor, weight.index_select(0, at::tensor({7, 3}, at::kLong))));
      at::Tensor(tensor).fill_(5);
    }
    EXPECT_EQ(a.model->head().rows != nullptr, tied);
    EXPECT_EQ(adapters.token_matrices(), Names{"model.embed_tokens.weight"});
    at::Tensor merged = weight.clone();
    adapters.merge_tokens("model.embed_tokens.weight", merged, at::kFloat);
    EXPECT_TRUE(at::equal(merged, weight.index_fill(0, at::tensor({7, 3}, at::kLong), 5)));
  }
}

TEST(TokenAdapters, RowsOfNewTokensAreTrainedWhereNothingTrainsThem) {
  Adapted a;
  a.config = with_tokens(a.config, 22, {20, 21});
  a.peft.target_modules = Names{"q_proj"};
  EXPECT_EQ(a.build().peft().trainable_token_indices, (std::vector<int64_t>{20, 21}));
  EXPECT_EQ(a.adapters->peft().head_token_indices, (std::vector<int64_t>{20, 21}));
  a.peft.modules_to_save = Names{"embed_tokens"};
  EXPECT_EQ(a.build().peft().trainable_token_indices, std::nullopt);
  EXPECT_EQ(a.adapters->peft().head_token_indices, (std::vector<int64_t>{20, 21}));
  Adapted tied(true);
  tied.config = with_tokens(tied.config, 22, {20, 21});
  tied.peft.target_modules = Names{"q_proj"};
  EXPECT_EQ(tied.build().peft().head_token_indices, std::nullopt);
}

TEST(TokenAdapters, OneOfTwoTiedMatricesIsAdaptedButNotMerged) {
  for (const char* target : {"embed_tokens", "lm_head"}) {
    Adapted a(true);
    a.peft.target_modules = Names{target};
    EXPECT_NE(a.refusal().find("cannot be merged"), std::string::npos) << target;
    EXPECT_EQ(a.adapters->saved_base().front().second, "model.embed_tokens.weight");
  }
}

TEST(TokenAdapters, WhatCannotBeIsRefused) {
  struct Case {
    bool tied;
    Names targets;
    std::function<void(recipes::Peft&)> change;
    const char* says;
  };
  const std::vector<Case> cases = {
      {false, {"embed_tokens"}, [](auto& p) { p.use_dora = true; }, "peft.use_dora: not on the embedding"},
      {false, {"lm_head"}, [](auto& p) { p.use_dora = true; }, "peft.use_dora: not on the output head"},
      {false, {"embed_tokens"}, [](auto& p) { p.lora_bias = true; }, "peft.lora_bias: an embedding"},
      {true, {"lm_head"}, [](auto& p) { p.init_lora_weights = "pissa"; }, "changes the weights of lm_head"},
      {true, {"q_proj"}, [](auto& p) { p.modules_to_save = Names{"lm_head"}; }, "peft.modules_to_save: lm_head"},
      {true,
       {"lm_head"},
       [](auto& p) { p.trainable_token_indices = std::vector<int64_t>{1}; },
       "peft.trainable_token_indices: the rows are those of lm_head too"},
      {false,
       {"embed_tokens"},
       [](auto& p) { p.trainable_token_indices = std::vector<int64_t>{1}; },
       "peft.trainable_token_indices: model.embed_tokens is trained as a whole already"},
      {false,
       {"q_proj"},
       [](auto& p) { p.trainable_token_indices = std::vector<int64_t>{20}; },
       "peft.trainable_token_indices: 20 is no token of this model, whose vocab_size is 20"},
      {false,
       {"q_proj"},
       [](auto& p) { p.trainable_token_indices = std::vector<int64_t>{1, 4, 1}; },
       "peft.trainable_token_indices: 1 stands there twice"},
  };
  for (const Case& c : cases) {
    Adapted a(c.tied);
    a.peft.target_modules = c.targets;
    c.change(a.peft);
    const std::string line = a.refusal();
    EXPECT_NE(line.find(c.says), std::string::npos) << c.says << " but: " << line;
    EXPECT_EQ(line.find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace temper::trainer
