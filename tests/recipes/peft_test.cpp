#include <map>

#include <gtest/gtest.h>

#include "recipes/peft_methods.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"
#include "tests/recipes/recipe_files.h"

/// [peft]: how it is read, what a method brings, and what is refused.
namespace temper::recipes {
namespace {

using Lines = std::vector<std::string>;

Recipe read(const std::string& toml, const Lines& overrides = {}) {
  RecipeFiles files;
  files.write("r.toml", kLeast + toml);
  return files.read("r.toml", overrides);
}

// ---- reading -----------------------------------------------------------------------------------

TEST(Peft, IsAbsentUnlessItIsWritten) {
  const Recipe recipe = read("");
  EXPECT_EQ(recipe.peft, Peft{});
  EXPECT_EQ(to_toml(recipe).find("peft"), std::string::npos);
}

TEST(Peft, WithoutAMethodIsLora) {
  EXPECT_EQ(read("[peft]\n").peft.method, "lora");
  EXPECT_EQ(read("[peft]\nr = 4\n").peft.method, "lora");
  EXPECT_EQ(read("", {"peft.r=4"}).peft.method, "lora");
  EXPECT_EQ(read("", {"peft={r=4}"}).peft.method, "lora");
  EXPECT_EQ(read("[peft]\nr = 4\n", {"peft.method=loha"}).peft.method, "loha");
}

TEST(Peft, ParametersMayStandAlone) {
  const Recipe recipe = read(
      "[peft]\ntarget_modules = []\ntarget_parameters = [\"mlp.up_proj.weight\"]\n"
      "init_lora_weights = \"pissa\"\nuse_rslora = true\n");
  EXPECT_EQ(recipe.peft.target_modules, NamesOrPattern(Lines{}));
  EXPECT_EQ(recipe.peft.target_parameters, Lines{"mlp.up_proj.weight"});
  EXPECT_NE(to_toml(recipe).find("target_modules = []\n"), std::string::npos);
}

TEST(Peft, ReadsEveryTypeOfValue) {
  const Peft peft = read(
                        "[peft]\n"
                        "r = 16\n"
                        "dtype = \"bf16\"\n"
                        "target_modules = [\"q_proj\", \"v_proj\"]\n"
                        "exclude_modules = \".*\\\\.0\\\\..*\"\n"
                        "layers_to_transform = [0, 2]\n"
                        "layers_pattern = \"layers\"\n"
                        "modules_to_save = [\"lm_head\"]\n"
                        "trainable_token_indices = [5, 6]\n"
                        "init_lora_weights = \"pissa_niter_16\"\n"
                        "use_rslora = true\n"
                        "[peft.rank_pattern]\n"
                        "\"layers.0.*q_proj\" = 4\n"
                        "v_proj = 2\n")
                        .peft;
  EXPECT_EQ(peft.r, 16);
  EXPECT_EQ(peft.dtype, Dtype::kBf16);
  EXPECT_EQ(peft.target_modules, NamesOrPattern(Lines{"q_proj", "v_proj"}));
  EXPECT_EQ(peft.exclude_modules, NamesOrPattern(".*\\.0\\..*"));
  EXPECT_EQ(peft.layers_to_transform, IntOrInts(std::vector<int64_t>{0, 2}));
  EXPECT_EQ(peft.layers_pattern, NamesOrPattern("layers"));
  EXPECT_EQ(peft.modules_to_save, Lines{"lm_head"});
  EXPECT_EQ(peft.trainable_token_indices, (std::vector<int64_t>{5, 6}));
  EXPECT_EQ(peft.init_lora_weights, BoolOrWord(std::string("pissa_niter_16")));
  EXPECT_EQ(peft.use_rslora, true);
  EXPECT_EQ(peft.rank_pattern,
            (std::map<std::string, int64_t>{{"layers.0.*q_proj", 4}, {"v_proj", 2}}));
}

TEST(Peft, ReadsOverridesByTheTypeOfTheKey) {
  const Peft peft = read("", {"peft.r=16", "peft.target_modules=[\"q_proj\",\"v_proj\"]",
                              "peft.layers_to_transform=1", "peft.init_lora_weights=false",
                              "peft.alpha_pattern={q_proj=4}", "peft.modules_to_save=[\"score\"]",
                              "peft.trainable_token_indices=[7]", "peft.lora_dropout=0.1"})
                        .peft;
  EXPECT_EQ(peft.r, 16);
  EXPECT_EQ(peft.target_modules, NamesOrPattern(Lines{"q_proj", "v_proj"}));
  EXPECT_EQ(peft.layers_to_transform, IntOrInts(int64_t{1}));
  EXPECT_EQ(peft.init_lora_weights, BoolOrWord(false));
  EXPECT_EQ(peft.alpha_pattern, (std::map<std::string, int64_t>{{"q_proj", 4}}));
  EXPECT_EQ(peft.modules_to_save, Lines{"score"});
  EXPECT_EQ(peft.trainable_token_indices, std::vector<int64_t>{7});
  EXPECT_EQ(peft.lora_dropout, 0.1);
}

TEST(Peft, TakesAnOverriddenStringAsItIs) {
  const auto target = [](const std::string& typed) {
    return read("", {"peft.target_modules=" + typed}).peft.target_modules;
  };
  EXPECT_EQ(target("all-linear"), NamesOrPattern("all-linear"));
  EXPECT_EQ(target("\"all-linear\""), NamesOrPattern("all-linear"));
  EXPECT_EQ(target("[qv]_proj"), NamesOrPattern("[qv]_proj"));
  EXPECT_EQ(target("auto"), std::nullopt);
  EXPECT_EQ(read("", {"peft.init_lora_weights=orthogonal"}).peft.init_lora_weights,
            BoolOrWord(std::string("orthogonal")));
}

// ---- resolving ---------------------------------------------------------------------------------

TEST(ResolvedPeft, HasTheMethodsDefaultsAndNoOthers) {
  const Peft lora = read("[peft]\n").peft;
  EXPECT_EQ(lora.r, 8);
  EXPECT_EQ(lora.lora_alpha, 8);
  EXPECT_EQ(lora.lora_dropout, 0.0);
  EXPECT_EQ(lora.bias, "none");
  EXPECT_EQ(lora.init_lora_weights, BoolOrWord(true));
  EXPECT_FALSE(lora.target_modules.has_value());
  EXPECT_FALSE(lora.eva_rho.has_value());
  EXPECT_FALSE(lora.alpha.has_value());
  EXPECT_EQ(read("[peft]\nmethod = \"vera\"\n").peft.r, 256);
  const Peft ia3 = read("[peft]\nmethod = \"ia3\"\n").peft;
  EXPECT_EQ(ia3.init_ia3_weights, true);
  EXPECT_FALSE(ia3.r.has_value());
}

TEST(ResolvedPeft, BringsTheDefaultsOfAnInitialisationWithIt) {
  Recipe recipe;
  recipe.peft.method = "lora";
  recipe.peft.init_lora_weights = std::string("eva");
  recipe.peft.eva_rho = 1.0;
  const Peft peft = resolve(recipe).peft;
  EXPECT_EQ(peft.eva_rho, 1.0);
  EXPECT_EQ(peft.eva_tau, 0.99);
  EXPECT_FALSE(peft.loftq_bits.has_value());
}

TEST(ResolvedPeft, ReadsBackAsItself) {
  for (const PeftMethod& method : peft_methods()) {
    std::string toml = "[peft]\nmethod = \"" + method.name + "\"\n";
    if (method.field("num_virtual_tokens")) toml += "num_virtual_tokens = 4\n";
    if (method.field("total_step")) toml += "total_step = 100\n";
    if (method.field("target_modules")) toml += "target_modules = [\"q\\\"\", \"k\"]\n";
    if (method.field("layers_to_transform")) toml += "layers_to_transform = [1]\n";
    if (method.field("rank_pattern")) toml += "rank_pattern = { \"^a.*b$\" = 4, q_proj = 2 }\n";
    const Recipe recipe = read(toml);
    RecipeFiles files;
    files.write("resolved.toml", to_toml(recipe));
    EXPECT_EQ(files.read("resolved.toml"), recipe) << to_toml(recipe);
  }
}

TEST(ResolvedPeft, WritesWhatIsSetOfTheMethodsKeys) {
  const std::string text = to_toml(read("[peft]\nmethod = \"ia3\"\n[optimizer]\nlr = 1\n"));
  const size_t begin = text.find("[peft]");
  EXPECT_EQ(text.substr(begin, text.find("\n\n", begin) - begin),
            "[peft]\nmethod = \"ia3\"\ndtype = \"fp32\"\ninit_ia3_weights = true");
}

TEST(PeftMethods, HaveKeysThatTheSchemaKnows) {
  for (const PeftMethod& method : peft_methods()) {
    for (const PeftField& field : method.fields) {
      const Key* key = find_key("peft." + field.key);
      ASSERT_NE(key, nullptr) << field.key;
      EXPECT_EQ(problem_with(*key, field.initial), "") << method.name << " " << field.key;
      for (const Value& value : field.allowed)
        EXPECT_EQ(problem_with(*key, value), "") << field.key;
    }
  }
  for (const Key& key : keys()) {
    if (!key.name.starts_with("peft.")) continue;
    EXPECT_FALSE(methods_with(key.name).empty()) << key.name;
  }
}

TEST(Peft, GoesWithWhatItNeeds) {
  EXPECT_EQ(read("[peft]\nuse_dora = true\n", {"model.quantize=nf4", "model.double_quant=false"})
                .model.quantize,
            "nf4");
  EXPECT_TRUE(read("[peft]\n", {"export.merge=true"}).export_.merge);
  EXPECT_EQ(read("", {"model.adapter=a", "model.quantize=int8", "export.merge=true"}).model.adapter,
            "a");
  EXPECT_EQ(read("[peft]\n", {"optimizer.loraplus_lr_ratio=16"}).optimizer.loraplus_lr_ratio, 16.0);
  EXPECT_EQ(read("", {"model.add_tokens=[\"<a>\", \"<b>\"]"}).model.add_tokens,
            (Lines{"<a>", "<b>"}));
  EXPECT_EQ(read("", {"optimizer.kind=adamw_8bit", "optimizer.betas=[0.9, 0.95]"}).optimizer.betas,
            (std::vector<double>{0.9, 0.95}));
  EXPECT_EQ(read("[peft]\nmethod = \"oft\"\nr = 4\noft_block_size = 0\n").peft.r, 4);
}

TEST(Peft, IsNotNeededToEvaluateAQuantisedModel) {
  RecipeFiles files;
  files.write("r.toml", kLeast + "[[data.eval]]\npath = \"e.jsonl\"\n");
  EXPECT_EQ(files.refusal("r.toml", {"model.quantize=nf4"}, {.purpose = Purpose::kEval}), Lines{});
}

// ---- what is refused ---------------------------------------------------------------------------

const std::string kMethods =
    "one of \"lora\", \"adalora\", \"ia3\", \"loha\", \"lokr\", \"vera\", \"oft\", \"boft\", "
    "\"ln_tuning\", \"prefix_tuning\", \"prompt_tuning\", \"p_tuning\"";
const std::string kInits =
    "not in this version, which has only true, false, \"gaussian\", \"orthogonal\", \"pissa\", "
    "\"pissa_niter_<k>\", \"olora\", \"eva\", \"loftq\"";

const Refused kCases[] = {
    // Names.
    {"MethodMisspelt",
     "[peft]\nmethod = \"lroa\"\nalpha = 3",
     {},
     {"r.toml:3: peft.method = \"lroa\": must be " + kMethods + " (nearest: \"lora\")"}},
    {"MethodOfPeftAlone",
     "",
     {"peft.method=fourierft"},
     {"command line: peft.method=fourierft: must be " + kMethods}},
    {"KeyMisspelt",
     "[peft]\nlora_aplha = 16",
     {},
     {"r.toml:3: peft.lora_aplha = 16: unknown key (nearest: peft.lora_alpha)"}},
    {"SubTableMisspelt",
     "[peft.eva_confg]\nrho = 1.0",
     {},
     {"r.toml:2: peft.eva_confg: unknown key (nearest: peft.eva_config)"}},
    {"KeyOfASubTableMisspelt",
     "[peft.eva_config]\nroh = 1.0",
     {},
     {"r.toml:3: peft.eva_config.roh = 1.0: unknown key (nearest: peft.eva_config.rho)"}},
    {"ValueForASubTable",
     "",
     {"peft.eva_config=3"},
     {"command line: peft.eva_config=3: must be a table: [peft.eva_config]"}},
    // Fields of PEFT that are no keys.
    {"LaterField",
     "[peft]\nlayer_replication = [[0, 4]]",
     {},
     {"r.toml:3: peft.layer_replication = [[0, 4]]: replicated layers are not in this version: "
      "leave it out"}},
    {"LaterSubTable",
     "[peft.corda_config]\ncache_file = \"x\"",
     {},
     {"r.toml:2: peft.corda_config: CorDA is not in this version: leave it out"}},
    {"LaterFieldTyped",
     "",
     {"peft.arrow_config.top_k=3"},
     {"command line: peft.arrow_config.top_k=3: Arrow is not in this version: leave it out"}},
    {"FieldThatIsNotNeeded",
     "[peft]\ntask_type = \"CAUSAL_LM\"\nfan_in_fan_out = false",
     {},
     {"r.toml:3: peft.task_type = \"CAUSAL_LM\": is not needed: objective.kind says it",
      "r.toml:4: peft.fan_in_fan_out = false: is not needed: Temper knows which layers store "
      "their weight transposed"}},
    // Types and ranges.
    {"NumberForModules",
     "[peft]\ntarget_modules = 3",
     {},
     {"r.toml:3: peft.target_modules = 3: must be a string or a list of strings, or \"auto\""}},
    {"NoModules",
     "[peft]\ntarget_modules = []",
     {},
     {"r.toml:3: peft.target_modules = []: must not be empty, unless peft.target_parameters says "
      "what is adapted"}},
    {"NoModulesAndNoParameters",
     "[peft]\ntarget_modules = []\ntarget_parameters = []",
     {},
     {"r.toml:3: peft.target_modules = []: must not be empty, unless peft.target_parameters says "
      "what is adapted"}},
    {"OneParameter",
     "[peft]\ntarget_parameters = \"q_proj.weight\"",
     {},
     {"r.toml:3: peft.target_parameters = \"q_proj.weight\": must be a list of strings, or "
      "\"auto\""}},
    {"RankZero", "[peft]\nr = 0", {}, {"r.toml:3: peft.r = 0: must be at least 1"}},
    {"RankZeroInAPattern",
     "[peft]\nrank_pattern = { q_proj = 0 }",
     {},
     {"r.toml:3: peft.rank_pattern: q_proj: must be at least 1"}},
    {"TextInAPattern",
     "[peft]\nrank_pattern = { q_proj = \"8\" }",
     {},
     {"r.toml:3: peft.rank_pattern: must be a table of whole numbers, as { q_proj = 16 }, "
      "each at least 1"}},
    {"TextForLayers",
     "",
     {"peft.layers_to_transform=first"},
     {"command line: peft.layers_to_transform=first: must be a whole number or a list of them, "
      "each at least 0, or \"auto\""}},
    {"NegativeLayer",
     "[peft]\nlayers_to_transform = [0, -1]",
     {},
     {"r.toml:3: peft.layers_to_transform = [0, -1]: each must be at least 0"}},
    {"TextForTokens",
     "[peft]\ntrainable_token_indices = [\"<a>\"]",
     {},
     {"r.toml:3: peft.trainable_token_indices = [\"<a>\"]: must be a list of whole numbers, each "
      "at least 0, or \"auto\""}},
    {"DropoutOfEverything",
     "[peft]\nlora_dropout = 1.0",
     {},
     {"r.toml:3: peft.lora_dropout = 1.0: must be at least 0 and below 1"}},
    // Python's syntax, which PEFT has and ECMAScript has not, is right.
    {"NamedGroupOfNoPattern",
     "[peft]\ntarget_modules = \"(?P<a>q|v)_proj(?<=x\"",
     {},
     {"r.toml:3: peft.target_modules = \"(?P<a>q|v)_proj(?<=x\": \"(?P<a>q|v)_proj(?<=x\" is not a "
      "regular expression: missing closing parenthesis at character 20"}},
    {"ModulesThatAreNoPattern",
     "[peft]\ntarget_modules = \"q(\"\nexclude_modules = \"*\"",
     {},
     {"r.toml:3: peft.target_modules = \"q(\": \"q(\" is not a regular expression: "
      "missing closing parenthesis at character 2",
      "r.toml:4: peft.exclude_modules = \"*\": \"*\" is not a regular expression: "
      "quantifier does not follow a repeatable item at character 0"}},
    {"RankOfNoPattern",
     "[peft]\nalpha_pattern = { \"q[\" = 4 }",
     {},
     {"r.toml:3: peft.alpha_pattern: \"q[\" is not a regular expression: missing terminating ] for "
      "character class at character 2"}},
    {"InitMisspelt",
     "[peft]\ninit_lora_weights = \"pisa\"",
     {},
     {"r.toml:3: peft.init_lora_weights = \"pisa\": must be true, false, \"gaussian\", "
      "\"orthogonal\", \"pissa\", \"pissa_niter_<k>\", \"olora\", \"eva\", \"loftq\", \"corda\", "
      "\"lora_ga\", \"mica\", or \"auto\" (nearest: \"pissa\")"}},
    {"InitWithoutItsNumber",
     "",
     {"peft.init_lora_weights=pissa_niter_"},
     {"command line: peft.init_lora_weights=pissa_niter_: must be true, false, \"gaussian\", "
      "\"orthogonal\", \"pissa\", \"pissa_niter_<k>\", \"olora\", \"eva\", \"loftq\", \"corda\", "
      "\"lora_ga\", \"mica\", or \"auto\" (nearest: \"pissa_niter_<k>\")"}},
    {"LaterInits",
     "[peft]\ninit_lora_weights = \"corda\"",
     {},
     {"r.toml:3: peft.init_lora_weights = \"corda\": " + kInits}},
    {"BitsThatPeftDoesNotHave",
     "[peft]\ninit_lora_weights = \"loftq\"\n[peft.loftq_config]\nloftq_bits = 2",
     {},
     {"r.toml:5: peft.loftq_config.loftq_bits = 2: must be 4 or 8 with peft.method = \"lora\""}},
    // What belongs to the method.
    {"KeyOfOtherMethods",
     "[peft]\nmethod = \"ia3\"\nlora_alpha = 8",
     {},
     {"r.toml:4: peft.lora_alpha = 8: belongs to lora and adalora, not to peft.method = \"ia3\""}},
    {"PatternOfOtherMethods",
     "[peft]\nmethod = \"adalora\"\ntotal_step = 9\nr = 4\nrank_pattern = { q = 1 }",
     {},
     {"r.toml:5: peft.r = 4: belongs to lora, loha, lokr, vera and oft, not to peft.method = "
      "\"adalora\"",
      "r.toml:6: peft.rank_pattern: belongs to lora, loha and lokr, not to peft.method = "
      "\"adalora\""}},
    {"BiasOfAnotherMethod",
     "[peft]\nmethod = \"oft\"\nbias = \"lora_only\"",
     {},
     {"r.toml:4: peft.bias = \"lora_only\": must be \"none\", \"all\" or \"oft_only\" with "
      "peft.method = \"oft\""}},
    {"InitOfAnotherMethod",
     "[peft]\nmethod = \"prefix_tuning\"\nnum_virtual_tokens = 2\ninit_weights = true",
     {},
     {"r.toml:5: peft.init_weights = true: must be \"zero\" with peft.method = "
      "\"prefix_tuning\""}},
    {"SubTableOfAnotherInit",
     "[peft.eva_config]\nrho = 1.0",
     {},
     {"r.toml:3: peft.eva_config.rho = 1.0: belongs to peft.init_lora_weights = \"eva\" alone"}},
    // Rules of the methods.
    {"PatternWithoutLayers",
     "[peft]\nlayers_pattern = \"h\"",
     {},
     {"r.toml:3: peft.layers_pattern = \"h\": needs peft.layers_to_transform"}},
    {"LayersOfAnExpression",
     "[peft]\ntarget_modules = \"all-linear\"\nlayers_to_transform = 1",
     {},
     {"r.toml:4: peft.layers_to_transform = 1: needs a list in peft.target_modules: an expression "
      "says the layers itself"}},
    {"FeedforwardOutsideTheTargets",
     "[peft]\nmethod = \"ia3\"\ntarget_modules = [\"k_proj\"]\nfeedforward_modules = "
     "[\"down_proj\"]",
     {},
     {"r.toml:5: peft.feedforward_modules = [\"down_proj\"]: \"down_proj\" is not in "
      "peft.target_modules"}},
    {"BiasOfPissa",
     "[peft]\nlora_bias = true\ninit_lora_weights = \"pissa\"",
     {},
     {"r.toml:3: peft.lora_bias = true: needs peft.init_lora_weights = true or false"}},
    {"BiasOfDora",
     "[peft]\nlora_bias = true\nuse_dora = true",
     {},
     {"r.toml:3: peft.lora_bias = true: cannot go with peft.use_dora"}},
    {"ParametersOfAnotherMethod",
     "[peft]\nmethod = \"adalora\"\ntotal_step = 9\ntarget_parameters = [\"q_proj.weight\"]",
     {},
     {"r.toml:5: peft.target_parameters = [\"q_proj.weight\"]: belongs to lora, not to peft.method "
      "= \"adalora\""}},
    {"ParametersWithWhatNeedsALayer",
     "[peft]\ntarget_parameters = [\"up_proj.weight\"]\nlora_dropout = 0.1\nuse_dora = true",
     {},
     {"r.toml:4: peft.lora_dropout = 0.1: cannot go with peft.target_parameters",
      "r.toml:5: peft.use_dora = true: cannot go with peft.target_parameters"}},
    {"ParametersWithABias",
     "[peft]\ntarget_parameters = [\"up_proj.weight\"]\nlora_bias = true",
     {},
     {"r.toml:4: peft.lora_bias = true: cannot go with peft.target_parameters"}},
    {"ParametersThatStartInTheData",
     "[peft]\ntarget_parameters = [\"up_proj.weight\"]\ninit_lora_weights = \"eva\"",
     {},
     {"r.toml:4: peft.init_lora_weights = \"eva\": cannot go with peft.target_parameters"}},
    {"ParametersThatStartQuantised",
     "[peft]\ntarget_parameters = [\"up_proj.weight\"]\ninit_lora_weights = \"loftq\"",
     {},
     {"r.toml:4: peft.init_lora_weights = \"loftq\": cannot go with peft.target_parameters"}},
    {"LayersOfNoModules",
     "[peft]\ntarget_modules = []\ntarget_parameters = [\"up_proj.weight\"]\n"
     "layers_to_transform = 1\nexclude_modules = [\"q_proj\"]",
     {},
     {"r.toml:5: peft.layers_to_transform = 1: has no effect with peft.target_modules = []",
      "r.toml:6: peft.exclude_modules = [\"q_proj\"]: has no effect with peft.target_modules = []"}},
    {"AdaLoraWithoutSteps",
     "[peft]\nmethod = \"adalora\"",
     {},
     {"r.toml:3: peft.method = \"adalora\": needs peft.total_step, the steps of the run"}},
    {"AdaLoraWithoutTime",
     "[peft]\nmethod = \"adalora\"\ntotal_step = 10\ntinit = 6\ntfinal = 4",
     {},
     {"r.toml:5: peft.tinit = 6: peft.tinit + peft.tfinal must be below peft.total_step = 10: "
      "ranks fall in between"}},
    {"AdaLoraThatGrows",
     "[peft]\nmethod = \"adalora\"\ntotal_step = 10\ntarget_r = 16",
     {},
     {"r.toml:5: peft.target_r = 16: must be at most peft.init_r = 12"}},
    {"OftWithTwoSizes",
     "[peft]\nmethod = \"oft\"\nr = 4",
     {},
     {"r.toml:4: peft.r = 4: exactly one of peft.oft_block_size = 32 and peft.r = 4 must be 0: "
      "their product is a side of the layer"}},
    {"BoftWithNoSize",
     "",
     {"peft.method=boft", "peft.boft_block_size=0"},
     {"command line: peft.boft_block_size=0: exactly one of peft.boft_block_size = 0 and "
      "peft.boft_block_num = 0 must be 0: their product is a side of the layer"}},
    {"OftWithModuleDropout",
     "[peft]\nmethod = \"oft\"\nmodule_dropout = 0.1",
     {},
     {"r.toml:4: peft.module_dropout = 0.1: PEFT takes it for OFT but never applies it: leave it "
      "at 0"}},
    {"EpsWithoutCoft",
     "[peft]\nmethod = \"oft\"\neps = 1e-4",
     {},
     {"r.toml:4: peft.eps = 1e-04: has no effect with peft.coft = false"}},
    {"PromptWithoutLength",
     "[peft]\nmethod = \"p_tuning\"",
     {},
     {"r.toml:3: peft.method = \"p_tuning\": needs peft.num_virtual_tokens"}},
    {"PromptWithoutText",
     "[peft]\nmethod = \"prompt_tuning\"\nnum_virtual_tokens = 4\nprompt_tuning_init = \"TEXT\"",
     {},
     {"r.toml:5: peft.prompt_tuning_init = \"TEXT\": needs peft.prompt_tuning_init_text"}},
    {"TextOfARandomPrompt",
     "[peft]\nmethod = \"prompt_tuning\"\nnum_virtual_tokens = 4\nprompt_tuning_init_text = \"a\"",
     {},
     {"r.toml:5: peft.prompt_tuning_init_text = \"a\": needs peft.prompt_tuning_init = "
      "\"TEXT\""}},
    {"WidthWithoutProjection",
     "[peft]\nmethod = \"prefix_tuning\"\nnum_virtual_tokens = 4\nencoder_hidden_size = 8",
     {},
     {"r.toml:5: peft.encoder_hidden_size = 8: has no effect with peft.prefix_projection = "
      "false"}},
    {"DropoutOfAnMlp",
     "[peft]\nmethod = \"p_tuning\"\nnum_virtual_tokens = 4\nencoder_dropout = 0.5",
     {},
     {"r.toml:5: peft.encoder_dropout = 0.5: has no effect with "
      "peft.encoder_reparameterization_type = \"MLP\""}},
    // Around the adapter.
    {"QuantisedFullFineTuning",
     "[model]\nquantize = \"nf4\"",
     {},
     {"r.toml:3: model.quantize = \"nf4\": quantised weights are frozen: add [peft] to train an "
      "adapter on them"}},
    {"DoubleQuantisationOfNothing",
     "[peft]\n[model]\ndouble_quant = false",
     {"model.quantize=int8"},
     {"r.toml:4: model.double_quant = false: has no effect with model.quantize = \"int8\""}},
    {"AdapterOnAnAdapter",
     "[peft]\n[model]\nadapter = \"a\"",
     {},
     {"r.toml:4: model.adapter = \"a\": its own adapter_config.json says the method: leave [peft] "
      "out"}},
    {"ParametersBesideAnAdapter",
     "[peft]\n[train]\ntrainable = [\"bias$\"]",
     {},
     {"r.toml:4: train.trainable = [\"bias$\"]: the adapter is what is trained: name modules that "
      "are trained along in peft.modules_to_save"}},
    {"NothingToMerge",
     "[export]\nmerge = true",
     {},
     {"r.toml:3: export.merge = true: there is no adapter to merge: it needs [peft] or "
      "model.adapter"}},
    {"PromptToMerge",
     "[peft]\nmethod = \"prompt_tuning\"\nnum_virtual_tokens = 4\n[export]\nmerge = true",
     {},
     {"r.toml:6: export.merge = true: what prompt_tuning trains cannot be folded into the "
      "weights"}},
    {"EmptyToken",
     "[model]\nadd_tokens = [\"<a>\", \"\"]",
     {},
     {"r.toml:3: model.add_tokens = [\"<a>\", \"\"]: a token must not be empty"}},
    {"TokenTwice",
     "[model]\nadd_tokens = [\"<a>\", \"<b>\", \"<a>\"]",
     {},
     {"r.toml:3: model.add_tokens = [\"<a>\", \"<b>\", \"<a>\"]: \"<a>\" stands there twice"}},
    {"LoraPlusWithoutLora",
     "[peft]\nmethod = \"loha\"\n[optimizer]\nloraplus_lr_ratio = 16",
     {},
     {"r.toml:5: optimizer.loraplus_lr_ratio = 16: needs peft.method = \"lora\""}},
    {"LoraPlusWithoutItsRatio",
     "[peft]\n[optimizer]\nloraplus_weight_decay = 0.1",
     {},
     {"r.toml:4: optimizer.loraplus_weight_decay = 0.1: needs optimizer.loraplus_lr_ratio"}},
    {"DecayBesideLoraPlus",
     "[peft]\n[optimizer]\nloraplus_lr_ratio = 16\nweight_decay = 0.1",
     {},
     {"r.toml:5: optimizer.weight_decay = 0.1: has no effect with optimizer.loraplus_lr_ratio: "
      "say optimizer.loraplus_weight_decay"}},
};

class BadPeft : public testing::TestWithParam<Refused> {};

TEST_P(BadPeft, IsRefusedWithOneLineAFinding) {
  EXPECT_EQ(answer_to(GetParam()), GetParam().answer);
}

INSTANTIATE_TEST_SUITE_P(Recipe, BadPeft, testing::ValuesIn(kCases),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace temper::recipes
