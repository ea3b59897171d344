#include <gtest/gtest.h>

#include "recipes/objective_kinds.h"
#include "recipes/resolve.h"
#include "recipes/schema.h"
#include "tests/recipes/recipe_files.h"

/// [objective], its rewards, and what a kind decides in other tables.
namespace temper::recipes {
namespace {

const std::string kDpo = "[objective]\nkind = \"dpo\"\n";
const std::string kRewards = "[[objective.rewards]]\nkind = \"accuracy\"\n";
const std::string kGrpo = "[objective]\nkind = \"grpo\"\n" + kRewards;
const std::string kGkd = "[objective]\nkind = \"gkd\"\nteacher = \"big\"\n";
const std::string kDistill = "[objective]\nkind = \"distill\"\nteacher = \"big\"\n";
const std::string kRloo = "[objective]\nkind = \"rloo\"\n" + kRewards;

Recipe read(const std::string& toml, const std::vector<std::string>& overrides = {}) {
  RecipeFiles files;
  files.write("least.toml", kLeast);
  files.write("r.toml", "extends = \"least.toml\"\n" + toml);
  return files.read("r.toml", overrides);
}

TEST(Objective, GetsTrlsDefaultsOfItsKind) {
  const Objective dpo = read(kDpo).objective;
  EXPECT_EQ(dpo.loss_type, NamesOrPattern(std::vector<std::string>{"sigmoid"}));
  EXPECT_EQ(dpo.beta, 0.1);
  EXPECT_EQ(dpo.disable_dropout, true);
  EXPECT_EQ(dpo.ref_model, "");
  EXPECT_FALSE(dpo.ld_alpha.has_value());
  EXPECT_FALSE(dpo.epsilon.has_value());
  const Objective grpo = read(kGrpo).objective;
  EXPECT_EQ(grpo.loss_type, NamesOrPattern("dapo"));
  EXPECT_EQ(grpo.beta, 0.0);
  EXPECT_EQ(grpo.num_generations, 8);
  EXPECT_EQ(grpo.disable_dropout, false);
  EXPECT_FALSE(grpo.epsilon_high.has_value());
  EXPECT_EQ(read(kRloo).objective.num_generations, 2);
  EXPECT_EQ(read("").objective.loss_type, NamesOrPattern("nll"));
  const Objective gkd = read(kGkd).objective;
  EXPECT_EQ(gkd.beta, 0.5);
  EXPECT_EQ(gkd.lmbda, 0.5);
  EXPECT_EQ(gkd.max_completion_length, 128);
  EXPECT_EQ(gkd.disable_dropout, true);
  const Objective distill = read(kDistill).objective;
  EXPECT_EQ(distill.beta, 1.0);
  EXPECT_EQ(distill.lmbda, 0.0);
  EXPECT_EQ(distill.seq_kd, false);
  EXPECT_EQ(distill.max_completion_length, 512);
  EXPECT_EQ(distill.disable_dropout, false);
}

TEST(Objective, DecidesTheLearningRate) {
  const auto rate = [](const std::string& kind) {
    return *read("[objective]\nkind = \"" + kind + "\"\n").optimizer.lr;
  };
  EXPECT_EQ(rate("sft"), 2e-5);
  EXPECT_EQ(rate("reward"), 1e-4);
  for (const char* kind : {"dpo", "kto", "orpo", "cpo"}) EXPECT_EQ(rate(kind), 1e-6) << kind;
  EXPECT_EQ(read(kGrpo).optimizer.lr, 1e-6);
  EXPECT_EQ(read(kGkd).optimizer.lr, 2e-5);
  EXPECT_EQ(read(kDistill).optimizer.lr, 1e-6);
  EXPECT_EQ(read(kDpo + "[peft]\nr = 4").optimizer.lr, 2e-4);
}

TEST(Objective, PacksTheRowsOfATeacherUnlessCompletionsAreSampled) {
  EXPECT_EQ(read(kDistill).data.packing, Packing::kBfd);
  EXPECT_EQ(read(kDistill + "[data]\npacking = \"none\"\nloss_on = \"all\"").data.packing,
            Packing::kNone);
  EXPECT_EQ(read(kDistill + "seq_kd = true").data.packing, Packing::kNone);
  EXPECT_EQ(read(kGkd).data.packing, Packing::kNone);
  EXPECT_EQ(read(kGkd + "lmbda = 0").data.packing, Packing::kBfd);
}

TEST(Objective, PacksNothingElseButSft) {
  EXPECT_EQ(read("").data.packing, Packing::kBfd);
  EXPECT_EQ(read(kDpo).data.packing, Packing::kNone);
  EXPECT_EQ(read(kDpo + "[data]\npacking = \"none\"").data.packing, Packing::kNone);
}

TEST(Objective, SamplesFromTheWholeDistributionUnlessToldOtherwise) {
  const Generation generation = read(kGrpo + "[generation]\ntop_k = 50").generation;
  EXPECT_EQ(generation.temperature, 1.0);
  EXPECT_EQ(generation.top_p, 1.0);
  EXPECT_EQ(generation.top_k, 50);
  EXPECT_EQ(generation.repetition_penalty, 1.0);
  EXPECT_FALSE(generation.min_p.has_value());
  EXPECT_FALSE(read(kDpo).generation.temperature.has_value());
  EXPECT_EQ(read(kGkd).generation.temperature, 0.9);
  EXPECT_EQ(read(kGkd).generation.top_p, 1.0);
  EXPECT_FALSE(read(kGkd + "lmbda = 0").generation.temperature.has_value());
  EXPECT_EQ(read(kDistill).generation.temperature, 1.0);
}

TEST(Objective, TakesOneLossOrAList) {
  const std::vector<std::string> both = {"sigmoid", "sft"};
  EXPECT_EQ(
      read(kDpo, {"objective.loss_type=[\"sigmoid\", \"sft\"]", "objective.loss_weights=[1, 0.5]"})
          .objective.loss_type,
      NamesOrPattern(both));
  EXPECT_EQ(read(kDpo, {"objective.loss_type=hinge"}).objective.loss_type,
            NamesOrPattern(std::vector<std::string>{"hinge"}));
}

TEST(Objective, AlphaPoIsSimPoWithoutCrossEntropy) {
  const Objective objective =
      read("[objective]\nkind = \"cpo\"\nloss_type = \"alphapo\"\nalpha = 0.25").objective;
  EXPECT_EQ(objective.loss_type, NamesOrPattern("simpo"));
  EXPECT_EQ(objective.cpo_alpha, 0.0);
  EXPECT_EQ(objective.alpha, 0.25);
}

TEST(Rewards, GetTheDefaultsOfTheirKind) {
  const Recipe recipe = read(
      "[objective]\nkind = \"grpo\"\nmax_completion_length = 100\n"
      "[[objective.rewards]]\nkind = \"accuracy\"\nweight = 2\n"
      "[[objective.rewards]]\nkind = \"format\"\n"
      "[[objective.rewards]]\nkind = \"length\"\n"
      "[[objective.rewards]]\nkind = \"repetition\"\nname = \"repeats\"\n"
      "[[objective.rewards]]\nkind = \"program\"\ncommand = [\"python3\", \"score.py\"]\n");
  const std::vector<Reward>& rewards = recipe.objective.rewards;
  ASSERT_EQ(rewards.size(), 5u);
  EXPECT_EQ(rewards[0].weight, 2);
  EXPECT_EQ(rewards[0].answer, "answer");
  EXPECT_FALSE(rewards[0].pattern.has_value());
  EXPECT_EQ(rewards[1].pattern, "think");
  EXPECT_EQ(rewards[2].max, 100);
  EXPECT_EQ(rewards[2].soft, 20);
  EXPECT_EQ(rewards[3].name, "repeats");
  EXPECT_EQ(rewards[3].ngram, 3);
  EXPECT_EQ(rewards[3].max_penalty, -1);
  EXPECT_EQ(rewards[4].workers, 1);
  EXPECT_EQ(rewards[4].timeout, 10);
}

TEST(Rewards, AreAddressedByTheirIndex) {
  const Recipe recipe = read("[objective]\nkind = \"grpo\"\n",
                             {"objective.rewards.0.kind=length", "objective.rewards.0.max=64",
                              "objective.rewards.1={kind = \"regex\", pattern = \"x\"}"});
  ASSERT_EQ(recipe.objective.rewards.size(), 2u);
  EXPECT_EQ(recipe.objective.rewards[0].max, 64);
  EXPECT_EQ(recipe.objective.rewards[1].pattern, "x");
}

TEST(ResolvedObjective, IsAValidRecipeAgain) {
  const std::string all =
      "[[objective.rewards]]\nkind = \"length\"\n[[objective.rewards]]\nkind = \"program\"\n"
      "command = \"./score\"\n[[objective.rewards]]\nkind = \"regex\"\npattern = \"a\\\\d\"\n";
  for (const std::string& toml :
       {kDpo + "loss_type = [\"robust\", \"sft\"]\nlabel_smoothing = 0.1\nloss_weights = [1, 2]\n",
        std::string("[objective]\nkind = \"kto\"\n"), std::string("[objective]\nkind = \"orpo\"\n"),
        std::string("[objective]\nkind = \"cpo\"\nloss_type = \"alphapo\"\n"),
        std::string("[objective]\nkind = \"reward\"\n"), kGrpo + all,
        kRloo + "[generation]\ntemperature = 0.7\n", kGkd, kGkd + "lmbda = 0\nbeta = 0\n", kDistill,
        kDistill + "lmbda = 1\n"}) {
    const Recipe recipe = read(toml);
    RecipeFiles files;
    files.write("resolved.toml", to_toml(recipe));
    EXPECT_EQ(files.read("resolved.toml"), recipe) << toml;
  }
}

TEST(Differences, SeeRewards) {
  const Recipe before = read(kGrpo);
  Recipe after = before;
  after.objective.rewards[0].weight = 2;
  const std::vector<Difference> found = differences(before, after);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].key, "objective.rewards.0.weight");
  EXPECT_FALSE(found[0].may_differ_on_resume);
}

TEST(ObjectiveKinds, HaveKeysThatTheSchemaKnows) {
  for (const ObjectiveKind& kind : objective_kinds()) {
    for (const Field& field : kind.fields) {
      const Key* key = find_key("objective." + field.key);
      ASSERT_NE(key, nullptr) << kind.name << ' ' << field.key;
      EXPECT_TRUE(key->optional) << field.key;
      EXPECT_EQ(problem_with(*key, field.initial), "") << kind.name << ' ' << field.key;
    }
  }
  for (const Kind& kind : reward_kinds()) {
    for (const Field& field : kind.fields) {
      const RewardKey* key = find_reward_key(field.key);
      ASSERT_NE(key, nullptr) << kind.name << ' ' << field.key;
      EXPECT_EQ(problem_with(*key, field.initial), "") << kind.name << ' ' << field.key;
    }
  }
}

TEST(ObjectiveKinds, HaveEveryKeyOfTheTable) {
  for (const Key& key : keys()) {
    if (!key.name.starts_with("objective.") || key.name == "objective.kind") continue;
    EXPECT_FALSE(objectives_with(key.name).empty()) << key.name;
  }
}

const std::string kNeedsLoss = "has no effect: it belongs to objective.loss_type = ";

const Refused kCases[] = {
    // Keys of other kinds.
    {"KeyOfAnotherKind",
     "[objective]\nbeta = 0.1",
     {},
     {"r.toml:3: objective.beta = 0.1: belongs to dpo, kto, orpo, cpo, grpo, rloo, online_dpo, gkd and distill, not to "
      "objective.kind = \"sft\""}},
    {"KeyOfATeacher",
     kDpo + "teacher = \"big\"",
     {},
     {"r.toml:4: objective.teacher = \"big\": belongs to gkd and distill, not to objective.kind = "
      "\"dpo\""}},
    {"KeyOfOneKind",
     kDpo + "desirable_weight = 2",
     {},
     {"r.toml:4: objective.desirable_weight = 2: belongs to kto, not to objective.kind = \"dpo\""}},
    {"RewardsOfAPreference",
     kDpo + kRewards,
     {},
     {"r.toml:4: objective.rewards.0: belongs to grpo, rloo, online_dpo and ppo, not to objective.kind = \"dpo\""}},
    {"FieldOfTrlThatIsElsewhere",
     kGrpo + "[generation]\n",
     {"objective.temperature=0.9"},
     {"command line: objective.temperature=0.9: is not needed: generation.temperature says it"}},
    // Losses.
    {"LossOfAnotherKind",
     kDpo + "loss_type = \"nll\"",
     {},
     {"r.toml:4: objective.loss_type = \"nll\": must be one of \"sigmoid\", \"hinge\", \"ipo\", "
      "\"exo_pair\", \"nca_pair\", \"robust\", \"bco_pair\", \"sppo_hard\", \"aot\", "
      "\"aot_unpaired\", \"apo_zero\", \"apo_down\", \"discopop\", \"sft\", \"sigmoid_norm\" with "
      "objective.kind = \"dpo\""}},
    {"LossMisspeltInAList",
     "[objective]\nkind = \"kto\"\nloss_type = \"kot\"",
     {},
     {"r.toml:4: objective.loss_type = \"kot\": must be one of \"kto\", \"apo_zero_unpaired\" with "
      "objective.kind = \"kto\" (nearest: \"kto\")"}},
    {"ListOfLossesOfAnotherKind",
     "[objective]\nloss_type = [\"nll\", \"dft\"]",
     {},
     {"r.toml:3: objective.loss_type = [\"nll\", \"dft\"]: must be one name: only dpo takes a "
      "list"}},
    {"WeightsThatAreTooFew",
     kDpo + "loss_type = [\"sigmoid\", \"sft\"]\nloss_weights = [1.0]",
     {},
     {"r.toml:5: objective.loss_weights = [1.0]: needs a weight for each of the 2 names of "
      "objective.loss_type"}},
    // What the reference accepts and ignores.
    {"SmoothingThatIsIgnored",
     kDpo + "label_smoothing = 0.1",
     {},
     {"r.toml:4: objective.label_smoothing = 0.1: " + kNeedsLoss +
      "\"exo_pair\", \"robust\", \"aot\" or \"aot_unpaired\""}},
    {"SmoothingThatIsMissing",
     kDpo + "loss_type = \"exo_pair\"",
     {},
     {"r.toml:4: objective.loss_type = \"exo_pair\": must be above 0 with objective.loss_type = "
      "\"exo_pair\" (typical: 0.001)"}},
    {"SmoothingOfHalf",
     kDpo + "loss_type = \"robust\"\nlabel_smoothing = 0.5",
     {},
     {"r.toml:5: objective.label_smoothing = 0.5: must be below 0.5 with objective.loss_type = "
      "\"robust\""}},
    {"TauWithoutDiscopop",
     kDpo + "discopop_tau = 0.1",
     {},
     {"r.toml:4: objective.discopop_tau = 0.1: " + kNeedsLoss + "\"discopop\""}},
    {"AlphaOfAnotherDivergence",
     kDpo + "f_alpha_divergence_coef = 0.4",
     {},
     {"r.toml:4: objective.f_alpha_divergence_coef = 0.4: has no effect with "
      "objective.f_divergence_type = \"reverse_kl\""}},
    {"DivergenceOfAPlainRatio",
     kDpo + "loss_type = \"apo_zero\"\nf_divergence_type = \"js_divergence\"",
     {},
     {"r.toml:5: objective.f_divergence_type = \"js_divergence\": cannot go with "
      "objective.loss_type = \"apo_zero\", which is defined for \"reverse_kl\" alone"}},
    {"WeightingOfSortedPairs",
     kDpo + "loss_type = \"aot\"\nuse_weighting = true",
     {},
     {"r.toml:5: objective.use_weighting = true: cannot go with aot, whose sorted pairs are no "
      "longer those of the data"}},
    {"BetaOfZero",
     kDpo + "beta = 0",
     {},
     {"r.toml:4: objective.beta = 0: must be above 0 with objective.kind = \"dpo\" (typical: 0.05 "
      "to 0.5)"}},
    {"GammaWithoutSimPo",
     "[objective]\nkind = \"cpo\"\nsimpo_gamma = 1",
     {},
     {"r.toml:4: objective.simpo_gamma = 1: " + kNeedsLoss + "\"simpo\""}},
    {"SmoothingOfHinge",
     "[objective]\nkind = \"cpo\"\nloss_type = \"hinge\"\nlabel_smoothing = 0.1",
     {},
     {"r.toml:5: objective.label_smoothing = 0.1: " + kNeedsLoss + "\"sigmoid\" or \"simpo\""}},
    {"CrossEntropyOfAlphaPo",
     "[objective]\nkind = \"cpo\"\nloss_type = \"alphapo\"\ncpo_alpha = 1",
     {},
     {"r.toml:5: objective.cpo_alpha = 1: has no effect with objective.loss_type = \"alphapo\", "
      "which is \"simpo\" with cpo_alpha = 0"}},
    // References.
    {"SyncKeyWithoutSync",
     kDpo + "ref_model_sync_steps = 10",
     {},
     {"r.toml:4: objective.ref_model_sync_steps = 10: has no effect with objective.sync_ref_model "
      "= "
      "false"}},
    {"SyncWithAnAdapter",
     kDpo + "sync_ref_model = true\n[peft]\nr = 4",
     {},
     {"r.toml:4: objective.sync_ref_model = true: cannot go with an adapter, whose reference is "
      "the "
      "model without it"}},
    {"SyncOfWhatWasPrecomputed",
     kDpo + "sync_ref_model = true\nprecompute_ref_log_probs = true",
     {},
     {"r.toml:4: objective.sync_ref_model = true: cannot go with "
      "objective.precompute_ref_log_probs: the reference moves"}},
    {"ReferenceThatIsNotUsed",
     kGrpo,
     {"objective.ref_model=other"},
     {"command line: objective.ref_model=other: has no effect with objective.beta = 0: there is no "
      "reference"}},
    // GRPO and RLOO.
    {"NoRewards",
     "[objective]\nkind = \"grpo\"",
     {},
     {"r.toml:3: objective.kind = \"grpo\": needs [[objective.rewards]]: what scores a "
      "completion"}},
    {"OneGeneration",
     kGrpo,
     {"objective.num_generations=1"},
     {"command line: objective.num_generations=1: must be from 2 to 1000000"}},
    {"BatchThatCutsAGroup",
     kGrpo + "[batch]\nglobal = 20",
     {},
     {"r.toml:7: batch.global = 20: batch.global = 20 counts completions and must be a multiple of "
      "objective.num_generations = 8 (nearest: 16 or 24)"}},
    {"RolloutsThatCutAStep",
     kGrpo,
     {"objective.steps_per_generation=3"},
     {"command line: objective.steps_per_generation=3: must make whole steps: batch.micro x ranks "
      "x "
      "this = 12 is no multiple of batch.global = 64 (16 micro-batches a step)"}},
    {"GreedyRollouts",
     kGrpo + "[generation]\ntemperature = 0",
     {},
     {"r.toml:7: generation.temperature = 0: must be above 0 with objective.kind = \"grpo\": "
      "completions are sampled"}},
    {"TwoLengthsOfACompletion",
     kGrpo + "[generation]\nmax_new_tokens = 64",
     {},
     {"r.toml:7: generation.max_new_tokens = 64: has no effect with objective.kind = \"grpo\": say "
      "objective.max_completion_length"}},
    {"PromptsThatAreCut",
     kGrpo + "[data]\non_long_row = \"truncate\"",
     {},
     {"r.toml:7: data.on_long_row = \"truncate\": must be \"drop\" or \"error\" with "
      "objective.kind "
      "= \"grpo\": a prompt without its end is another prompt"}},
    {"TemperaturesOfAnotherLoss",
     kGrpo,
     {"objective.sapo_temperature_pos=2"},
     {"command line: objective.sapo_temperature_pos=2: " + kNeedsLoss + "\"sapo\""}},
    {"EpsilonOfSapo",
     kGrpo,
     {"objective.loss_type=sapo", "objective.epsilon=0.3"},
     {"command line: objective.epsilon=0.3: " + kNeedsLoss +
      "\"grpo\", \"bnpo\", \"dr_grpo\", \"dapo\", \"luspo\" or \"cispo\""}},
    {"SequencesOfVespo",
     kGrpo,
     {"objective.loss_type=vespo", "objective.importance_sampling_level=sequence"},
     {"command line: objective.importance_sampling_level=sequence: must be \"token\" with "
      "objective.loss_type = \"vespo\", which weighs sequences itself"}},
    {"CorrectionWithoutDivergence",
     kGrpo,
     {"objective.use_bias_correction_kl=false"},
     {"command line: objective.use_bias_correction_kl=false: has no effect with objective.beta = "
      "0"}},
    {"EntropyKeysAlone",
     kGrpo,
     {"objective.entropy_target=0.5"},
     {"command line: objective.entropy_target=0.5: has no effect with "
      "objective.use_adaptive_entropy = false"}},
    {"EntropyRangeTheWrongWayRound",
     kGrpo,
     {"objective.use_adaptive_entropy=true", "objective.entropy_coef_min=2"},
     {"command line: objective.entropy_coef_min=2: must be at most objective.entropy_coef_max = "
      "1.0"}},
    {"ClipRangeTheWrongWayRound",
     kRloo,
     {"objective.reward_clip_range=[1, -1]"},
     {"command line: objective.reward_clip_range=[1, -1]: must be two numbers, the lower one "
      "first, "
      "as [-10.0, 10.0]"}},
    {"KeyOfGrpoInRloo",
     kRloo,
     {"objective.zero_variance=skip"},
     {"command line: objective.zero_variance=skip: belongs to grpo, not to objective.kind = "
      "\"rloo\""}},
    // Teachers.
    {"NoTeacher",
     "[objective]\nkind = \"distill\"",
     {},
     {"r.toml:3: objective.kind = \"distill\": needs objective.teacher: the directory of the "
      "teacher"}},
    {"BetaAboveOne",
     kGkd + "beta = 1.5",
     {},
     {"r.toml:5: objective.beta = 1.5: must be at most 1 with objective.kind = \"gkd\""}},
    {"ShareAboveOne",
     kGkd + "lmbda = 2",
     {},
     {"r.toml:5: objective.lmbda = 2: must be from 0 to 1"}},
    {"TeacherThatIsNeverAsked",
     kGkd + "lmbda = 1\nseq_kd = true",
     {},
     {"r.toml:6: objective.seq_kd = true: has no effect with objective.lmbda = 1"}},
    {"LengthOfWhatIsNotSampled",
     kDistill + "max_completion_length = 64",
     {},
     {"r.toml:5: objective.max_completion_length = 64: has no effect with objective.lmbda = 0"}},
    {"TemperatureOfNothing",
     kGkd + "lmbda = 0\n[generation]\ntemperature = 0.8",
     {},
     {"r.toml:7: generation.temperature = 0.8: has no effect with objective.lmbda = 0: gkd's loss "
      "has no temperature"}},
    {"GreedyStudent",
     kDistill + "[generation]\ntemperature = 0",
     {},
     {"r.toml:6: generation.temperature = 0: must be above 0 with objective.kind = \"distill\""}},
    {"PackingOfAnswers",
     kGkd + "[data]\npacking = \"bfd\"",
     {},
     {"r.toml:6: data.packing = \"bfd\": must be \"none\" with objective.kind = \"gkd\": rows are "
      "packed with objective.lmbda = 0 and seq_kd = false"}},
    {"LayoutsOfAnswers",
     kGkd,
     {"run.deterministic=layout"},
     {"command line: run.deterministic=layout: cannot be \"layout\" with an objective that samples, "
      "in this version"}},
    {"TrlsNameOfTheLength",
     kGkd + "max_new_tokens = 64",
     {},
     {"r.toml:5: objective.max_new_tokens = 64: is not needed: objective.max_completion_length says "
      "it"}},
    // Rewards.
    {"RewardWithoutKind",
     "[objective]\nkind = \"grpo\"\n[[objective.rewards]]\nweight = 2",
     {},
     {"r.toml:4: objective.rewards.0: needs a kind: one of \"accuracy\", \"format\", \"regex\", "
      "\"length\", \"repetition\", \"model\", \"program\""}},
    {"RewardMisspelt",
     "[objective]\nkind = \"grpo\"\n[[objective.rewards]]\nkind = \"acuracy\"",
     {},
     {"r.toml:5: objective.rewards.0.kind = \"acuracy\": must be one of \"accuracy\", \"format\", "
      "\"regex\", \"length\", \"repetition\", \"model\", \"program\" (nearest: \"accuracy\")"}},
    {"RewardWithAnUnknownKey",
     kGrpo + "wieght = 1",
     {},
     {"r.toml:6: objective.rewards.0.wieght = 1: unknown key (nearest: weight)"}},
    {"KeyOfAnotherReward",
     kGrpo + "ngram = 2",
     {},
     {"r.toml:6: objective.rewards.0.ngram = 2: belongs to repetition, not to a reward of kind "
      "\"accuracy\""}},
    {"ProgramWithoutCommand",
     "[objective]\nkind = \"grpo\"\n[[objective.rewards]]\nkind = \"program\"",
     {},
     {"r.toml:5: objective.rewards.0.kind = \"program\": a reward of kind \"program\" needs "
      "command"}},
    {"RegexWithoutPattern",
     "[objective]\nkind = \"grpo\"\n[[objective.rewards]]\nkind = \"regex\"",
     {},
     {"r.toml:5: objective.rewards.0.kind = \"regex\": a reward of kind \"regex\" needs pattern"}},
    {"ModelWithoutPath",
     "[objective]\nkind = \"grpo\"\n[[objective.rewards]]\nkind = \"model\"",
     {},
     {"r.toml:5: objective.rewards.0.kind = \"model\": a reward of kind \"model\" needs path"}},
    {"TwoRewardsOfOneName",
     kGrpo + kRewards,
     {},
     {"r.toml:7: objective.rewards.1.kind = \"accuracy\": another reward is called \"accuracy\" "
      "too: give one a name"}},
    {"PenaltyThatIsNone",
     "[objective]\nkind = \"grpo\"\n[[objective.rewards]]\nkind = \"repetition\"\nmax_penalty = 1",
     {},
     {"r.toml:6: objective.rewards.0.max_penalty = 1: must be at most 0"}},
    {"SoftAboveMax",
     "[objective]\nkind = \"grpo\"\n[[objective.rewards]]\nkind = \"length\"\nmax = 10\nsoft = 11",
     {},
     {"r.toml:7: objective.rewards.0.soft = 11: soft must be at most max = 10"}},
    {"TableForTheRewards",
     "[objective]\nkind = \"grpo\"\nrewards = \"accuracy\"",
     {},
     {"r.toml:4: objective.rewards = \"accuracy\": must be a list of tables, each under its own "
      "[[objective.rewards]]"}},
    {"RewardThatIsNoTable",
     "[objective]\nkind = \"grpo\"\nrewards = [\"accuracy\"]",
     {},
     {"r.toml:4: objective.rewards.0 = \"accuracy\": must be a table with a kind: { kind = "
      "\"accuracy\" }"}},
    // Other tables.
    {"PackedPairs",
     kDpo + "[data]\npacking = \"bfd\"",
     {},
     {"r.toml:5: data.packing = \"bfd\": must be \"none\" with objective.kind = \"dpo\": only sft "
      "packs rows"}},
    {"WindowOfPairs",
     kDpo + "[data]\npacking_window = 10",
     {},
     {"r.toml:5: data.packing_window = 10: has no effect with objective.kind = \"dpo\": only sft "
      "packs rows"}},
    {"MaskOfPairs",
     kDpo + "[data]\nloss_on = \"all\"",
     {},
     {"r.toml:5: data.loss_on = \"all\": must be \"auto\" with objective.kind = \"dpo\", which "
      "compares whole completions"}},
    {"SplitPairs",
     kDpo + "[data]\non_long_row = \"split\"",
     {},
     {"r.toml:5: data.on_long_row = \"split\": cannot be \"split\" with objective.kind = \"dpo\", "
      "which compares whole completions"}},
    {"LonelyRowsOfKto",
     "[objective]\nkind = \"kto\"\n[batch]\nmicro = 1",
     {},
     {"r.toml:5: batch.micro = 1: must be at least 2 with objective.loss_type = \"kto\": its KL "
      "term pairs each prompt with the completion of another row"}},
    {"MetricOfAnotherKind",
     kDpo + "[eval]\nmetric = \"eval_reward\"",
     {},
     {"r.toml:5: eval.metric = \"eval_reward\": must be one of \"eval_loss\", "
      "\"eval_rewards/accuracies\", \"eval_rewards/margins\", \"eval_mean_token_accuracy\" with "
      "objective.kind = \"dpo\""}},
};

class BadObjective : public testing::TestWithParam<Refused> {};

TEST_P(BadObjective, IsRefusedWithOneLineAFinding) {
  EXPECT_EQ(answer_to(GetParam()), GetParam().answer);
}

INSTANTIATE_TEST_SUITE_P(Recipe, BadObjective, testing::ValuesIn(kCases),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST(BadObjective, OnlyItsKindIsToldWhereTheKindIsLater) {
  RecipeFiles files;
  files.write("r.toml", kLeast + "[objective]\nkind = \"mlm\"\nbeta = 0\nmlm_probability = 0.3\n" +
                            "[schedule]\nkind = \"polynomial\"\nlr_end = 1\n");
  const std::vector<std::string> lines = files.refusal("r.toml");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_TRUE(lines[0].starts_with("r.toml:8: objective.kind = \"mlm\": not in this version"));
}

}  // namespace
}  // namespace temper::recipes
