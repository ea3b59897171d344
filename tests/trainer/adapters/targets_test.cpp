#include "trainer/adapters/targets.h"

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {
namespace {

using Names = std::vector<std::string>;

std::vector<TargetModule> tiny_model() {
  std::vector<TargetModule> modules = {{.name = "model.embed_tokens", .linear = false}};
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    for (const char* linear : {"self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"}) {
      modules.push_back({.name = layer + linear});
    }
    modules.push_back({.name = layer + "input_layernorm", .linear = false});
  }
  modules.push_back({.name = "lm_head", .output_head = true});
  return modules;
}

recipes::Peft lora(const recipes::NamesOrPattern& targets) {
  recipes::Peft peft;
  peft.method = "lora";
  peft.target_modules = targets;
  return peft;
}

Names chosen(const recipes::Peft& peft) { return find_targets(peft, "llama", tiny_model()); }

Names refusal(const recipes::Peft& peft, const std::string& model_type = "llama") {
  try {
    find_targets(peft, model_type, tiny_model());
  } catch (const UserError& error) {
    return error.lines();
  }
  return {};
}

TEST(Targets, AreTheDefaultsOfPeftWhereNoneAreGiven) {
  recipes::Peft peft;
  peft.method = "lora";
  EXPECT_EQ(chosen(peft),
            (Names{"model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj",
                   "model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.v_proj"}));
  peft.method = "adalora";
  EXPECT_EQ(refusal(peft, "mistral"),
            (Names{"peft.target_modules: PEFT has no default for method adalora and model type "
                   "'mistral': set peft.target_modules"}));
}

TEST(Targets, AllLinearIsEveryLinearLayerButTheOutputHead) {
  EXPECT_EQ(chosen(lora("all-linear")).size(), 6u);
  EXPECT_EQ(chosen(lora("ALL-LINEAR")).size(), 6u);
}

TEST(Targets, AStringIsAPatternForTheWholeName) {
  EXPECT_EQ(chosen(lora(R"(.*\.0\.(?P<part>mlp|self_attn)\.(?!q)\w+)")),
            (Names{"model.layers.0.self_attn.v_proj", "model.layers.0.mlp.down_proj"}));
  EXPECT_EQ(refusal(lora("q_proj")),
            (Names{"peft.target_modules = 'q_proj': matches no module: did you mean 'q_proj'? (a "
                   "pattern must match the whole name, as '.*\\.q_proj' does)"}));
  EXPECT_EQ(refusal(lora("(q_proj")),
            (Names{"peft.target_modules: regular expression '(q_proj': missing "
                   "closing parenthesis at character 7"}));
}

TEST(Targets, AListedNameThatMatchesNothingIsRefusedWithTheNearest) {
  EXPECT_EQ(
      refusal(lora(Names{"q_proj", "v_prj", "self_atn.q_proj", "conv"})),
      (Names{"peft.target_modules: 'v_prj' is no module of this model: did you mean 'v_proj'?",
             "peft.target_modules: 'self_atn.q_proj' is no module of this model: did you "
             "mean 'self_attn.q_proj'?",
             "peft.target_modules: 'conv' is no module of this model: the model's modules are "
             "down_proj, embed_tokens, input_layernorm, lm_head, q_proj, v_proj"}));
}

TEST(Targets, AnAdapterOfPeftMayNameModulesThatAreNotThere) {
  EXPECT_EQ(find_targets(lora(Names{"c_attn", "down_proj"}), "llama", tiny_model(), false),
            (Names{"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}));
  EXPECT_THROW(find_targets(lora(Names{"c_attn"}), "llama", tiny_model(), false), UserError);
  EXPECT_THROW(find_targets(lora(Names{}), "llama", tiny_model(), false), UserError);
}

TEST(Targets, WhatIsExcludedOrSavedWholeIsNotWrapped) {
  recipes::Peft peft = lora("all-linear");
  peft.exclude_modules = Names{"q_proj", "v_proj"};
  EXPECT_EQ(chosen(peft), (Names{"model.layers.0.mlp.down_proj", "model.layers.1.mlp.down_proj"}));
  peft.modules_to_save = Names{"mlp"};
  EXPECT_EQ(refusal(peft),
            (Names{"peft.target_modules = 'all-linear': all that it matches is excluded "
                   "(peft.exclude_modules, peft.modules_to_save)"}));
}

TEST(Targets, LayersToTransformNarrowAList) {
  recipes::Peft peft = lora(Names{"q_proj", "model.layers.0.mlp.down_proj"});
  peft.layers_to_transform = 1;
  // A whole name stays, as in PEFT.
  EXPECT_EQ(chosen(peft),
            (Names{"model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj"}));
  peft.layers_to_transform = std::vector<int64_t>{1, 2};
  EXPECT_EQ(refusal(peft), (Names{"peft.layers_to_transform: the model has no layer 2"}));
  peft = lora("all-linear");
  peft.layers_to_transform = 0;
  EXPECT_EQ(refusal(peft), (Names{"peft.layers_to_transform: needs peft.target_modules to be a "
                                  "list, it is 'all-linear'"}));
}

recipes::Peft lora_of_weights(const Names& weights, const recipes::NamesOrPattern& modules = Names{}) {
  recipes::Peft peft = lora(modules);
  peft.target_parameters = weights;
  return peft;
}

TEST(Targets, AWeightIsNamedByTheEndOfItsNameWhateverNarrowsTheModules) {
  recipes::Peft peft = lora_of_weights({"1.mlp.down_proj.weight", "lm_head.weight"});
  EXPECT_EQ(chosen(peft), (Names{"model.layers.1.mlp.down_proj", "lm_head"}));
  EXPECT_EQ(target_name(peft, "lm_head"), "lm_head.weight");
  EXPECT_EQ(target_name(peft, "model.layers.0.mlp.down_proj"), "model.layers.0.mlp.down_proj");
  peft = lora_of_weights({"down_proj.weight"}, Names{"q_proj"});
  peft.layers_to_transform = 1;
  peft.exclude_modules = Names{"0.mlp.down_proj"};
  EXPECT_EQ(chosen(peft), (Names{"model.layers.0.mlp.down_proj", "model.layers.1.self_attn.q_proj",
                                 "model.layers.1.mlp.down_proj"}));
  peft.target_modules.reset();  // PEFT's choice, not none
  peft.layers_to_transform.reset();
  EXPECT_EQ(chosen(peft).size(), 6u);
}

TEST(Targets, AWeightThatIsNotThereIsRefusedWithTheNearest) {
  EXPECT_EQ(refusal(lora_of_weights({"q_proj", "mlp.dwn_proj.weight", "experts"})),
            (Names{"peft.target_parameters: 'q_proj' is no weight of this model: did you mean "
                   "'q_proj.weight'?",
                   "peft.target_parameters: 'mlp.dwn_proj.weight' is no weight of this model: did "
                   "you mean 'mlp.down_proj.weight'?",
                   "peft.target_parameters: 'experts' is no weight of this model: the model's "
                   "weights of linear layers are down_proj.weight, lm_head.weight, q_proj.weight, "
                   "v_proj.weight"}));
  EXPECT_EQ(refusal(lora_of_weights({"q_proj.weight"}, Names{"v_prj"})),
            (Names{"peft.target_modules: 'v_prj' is no module of this model: did you mean "
                   "'v_proj'?"}));
  EXPECT_EQ(refusal(lora_of_weights({"q_proj.weight"}, ".*v_prj")).size(), 1u);
  // An adapter's own config may name either.
  EXPECT_EQ(find_targets(lora_of_weights({"q_proj.weight", "w1"}, Names{"c_attn"}), "llama",
                         tiny_model(), false)
                .size(),
            2u);
  EXPECT_THROW(find_targets(lora_of_weights({"w1"}), "llama", tiny_model(), false), UserError);
}

TEST(Targets, AWeightIsTrainedInOneWayAlone) {
  const std::string start = "peft.target_parameters: model.layers.0.self_attn.q_proj.weight is ";
  EXPECT_EQ(refusal(lora_of_weights({"q_proj.weight"}, "all-linear")),
            (Names{start + "adapted with its module already (peft.target_modules, by default "
                           "PEFT's choice): leave one of them out, as peft.target_modules = [] "
                           "does"}));
  recipes::Peft peft = lora_of_weights({"q_proj.weight"});
  peft.modules_to_save = Names{"q_proj"};
  EXPECT_EQ(refusal(peft), (Names{start + "trained as a whole already (peft.modules_to_save): leave "
                                          "one of them out"}));
  for (const char* name : {"embed_tokens", "input_layernorm"}) {
    const Names lines = refusal(lora_of_weights({name + std::string(".weight")}));
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_NE(lines.front().find(name + std::string(".weight is not the weight of a linear layer: "
                                                    "name its module in ")),
              std::string::npos);
  }
}

TEST(Targets, SavedNamesOfAllLinearAreShortOnlyWhenTheyAreMany) {
  const recipes::Peft peft = lora("all-linear");
  EXPECT_EQ(std::get<Names>(saved_targets(peft, tiny_model())).size(), 6u);
  std::vector<TargetModule> modules;
  for (int layer = 0; layer < 12; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer);
    modules.push_back({.name = prefix + ".self_attn.q_proj"});
    modules.push_back({.name = prefix + ".mlp.gate"});
  }
  modules.push_back({.name = "model.vision.gate", .linear = false});
  EXPECT_EQ(std::get<Names>(saved_targets(peft, modules)), (Names{"mlp.gate", "q_proj"}));
}

TEST(Targets, PromptLearningHasNone) {
  recipes::Peft peft;
  peft.method = "prompt_tuning";
  EXPECT_EQ(chosen(peft), Names{});
}

TEST(Targets, FeedforwardModulesOfIa3AreNamedByTheirEndings) {
  recipes::Peft peft;
  peft.method = "ia3";
  set_default_targets(peft, "qwen2");
  EXPECT_TRUE(is_feedforward(peft, "model.layers.0.mlp.down_proj"));
  EXPECT_FALSE(is_feedforward(peft, "model.layers.0.self_attn.q_proj"));
  peft.feedforward_modules = ".*\\.q_proj";
  EXPECT_TRUE(is_feedforward(peft, "model.layers.0.self_attn.q_proj"));
}

TEST(Targets, PatternsAreForTheEndOfAName) {
  const std::map<std::string, int64_t> patterns = {
      {"layers\\.[0-3]\\.mlp\\..*", 2}, {"model.layers.0.self_attn.q_proj", 3}, {"v_proj", 5}};
  EXPECT_EQ(pattern_value(patterns, "model.layers.2.mlp.up_proj", 8), 2);
  EXPECT_EQ(pattern_value(patterns, "model.layers.0.self_attn.q_proj", 8), 3);
  EXPECT_EQ(pattern_value(patterns, "model.layers.7.self_attn.v_proj", 8), 5);
  EXPECT_EQ(pattern_value(patterns, "model.layers.7.self_attn.kv_proj", 8), 8);
}

TEST(Targets, ModulesToSaveAreNamedByAnyEnding) {
  EXPECT_TRUE(names_module({"lm_head"}, "lm_head"));
  EXPECT_TRUE(names_module({"norm"}, "model.layers.0.input_layernorm"));
  EXPECT_FALSE(names_module({"layers"}, "model.layers.0.input_layernorm"));
}

}  // namespace
}  // namespace temper::trainer
