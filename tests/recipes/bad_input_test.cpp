#include <ostream>

#include <gtest/gtest.h>

#include "tests/recipes/recipe_files.h"

/// Recipes that are refused: what is written (over a good recipe), what is typed, and the whole
/// answer.
namespace temper::recipes {
namespace {

using Lines = std::vector<std::string>;

struct Case {
  const char* name;
  std::string toml;  // from line 2 of r.toml
  Lines overrides;
  Lines answer;
};

void PrintTo(const Case& refused, std::ostream* out) { *out << refused.name; }

const std::string kSchedules =
    "one of \"linear\", \"cosine\", \"cosine_with_restarts\", \"polynomial\", \"constant\", "
    "\"constant_with_warmup\", \"inverse_sqrt\", \"cosine_with_min_lr\", "
    "\"cosine_warmup_with_min_lr\", "
    "\"warmup_stable_decay\"";
const std::string kOnlySft =
    "belongs to an objective that is not in this version, which has only kind = \"sft\" (its keys: "
    "kind, loss_type)";
const std::string kAdapters =
    "adapters are not in this version, which trains the weights themselves: leave [peft] out";
const std::string kColumns =
    "one of \"text\", \"prompt\", \"completion\", \"messages\", \"conversations\", \"tools\", "
    "\"chat_template_kwargs\"";

const Case kCases[] = {
    // Names.
    {"MisspeltKey",
     "[optimizer]\nlearn_rate = 1",
     {},
     {"r.toml:3: optimizer.learn_rate = 1: unknown key"}},
    {"NearlyRightKey",
     "[optimizer]\nweigth_decay = 1",
     {},
     {"r.toml:3: optimizer.weigth_decay = 1: unknown key (nearest: optimizer.weight_decay)"}},
    {"KeyOfAnotherTable",
     "[train]\nlr = 1",
     {},
     {"r.toml:3: train.lr = 1: unknown key (nearest: optimizer.lr)"}},
    {"MisspeltTable",
     "[optimiser]\nlr = 1",
     {},
     {"r.toml:2: optimiser: unknown table (nearest: optimizer)"}},
    {"MisspeltExtends",
     "extend = \"b.toml\"",
     {},
     {"r.toml:2: extend = \"b.toml\": unknown key (nearest: extends)"}},
    {"ValueForATable",
     "optimizer = 3",
     {},
     {"r.toml:2: optimizer = 3: must be a table: [optimizer]"}},
    {"MisspeltKeyOfASource",
     "[[data.eval]]\npath = \"e\"\nwieght = 1",
     {},
     {"r.toml:4: data.eval.0.wieght = 1: unknown key (nearest: weight)"}},
    {"MisspeltColumn",
     "[[data.eval]]\npath = \"e\"\ncolumns = { promt = \"q\" }",
     {},
     {"r.toml:4: data.eval.0.columns = {...}: \"promt\" is not " + kColumns +
      " (nearest: \"prompt\")"}},
    // Types.
    {"TextForANumber",
     "[optimizer]\nlr = \"fast\"",
     {},
     {"r.toml:3: optimizer.lr = \"fast\": must be a number, above 0, or \"auto\""}},
    {"FractionForAWholeNumber",
     "[train]\nsteps = 10.0",
     {},
     {"r.toml:3: train.steps = 10.0: must be a whole number of steps, at least 1, or \"auto\""}},
    {"NumberForAString", "[run]\noutput = 3", {}, {"r.toml:3: run.output = 3: must be a string"}},
    {"TextForABool",
     "[log]\ntensorboard = \"yes\"",
     {},
     {"r.toml:3: log.tensorboard = \"yes\": must be true or false"}},
    {"NumberForABool",
     "[log]\ntensorboard = 1",
     {},
     {"r.toml:3: log.tensorboard = 1: must be true or false"}},
    {"AutoForANumberThatIsNotOptional",
     "[batch]\nglobal = \"auto\"",
     {},
     {"r.toml:3: batch.global = \"auto\": must be a whole number of rows, from 1 to 1000000000"}},
    {"ScalarForAList",
     "[generation]\nstop = \"end\"",
     {},
     {"r.toml:3: generation.stop = \"end\": must be a list of strings"}},
    {"MixedList",
     "[train]\nfrozen = [\"a\", 1]",
     {},
     {"r.toml:3: train.frozen = [\"a\", 1]: must be a list of strings"}},
    {"StringForTheSources",
     "data.eval = \"e.jsonl\"",
     {},
     {"r.toml:2: data.eval = \"e.jsonl\": must be a list of tables, each under its own "
      "[[data.eval]]"}},
    {"TableForTheSources",
     "[data.eval]\npath = \"e.jsonl\"",
     {},
     {"r.toml:2: data.eval: must be a list of tables, each under its own [[data.eval]]"}},
    {"DateForANumber",
     "[optimizer]\nlr = 2020-01-01",
     {},
     {"r.toml:3: optimizer.lr = 2020-01-01: must be a number, above 0, or \"auto\""}},
    // Ranges.
    {"NegativeRate",
     "[optimizer]\nlr = -0.1",
     {},
     {"r.toml:3: optimizer.lr = -0.1: must be above 0"}},
    {"InfiniteRate", "[optimizer]\nlr = inf", {}, {"r.toml:3: optimizer.lr = inf: must be finite"}},
    {"RateThatIsNoNumber",
     "[optimizer]\nlr = nan",
     {},
     {"r.toml:3: optimizer.lr = nan: must be finite"}},
    {"BetaOfOne",
     "[optimizer]\nbetas = [0.9, 1.0]",
     {},
     {"r.toml:3: optimizer.betas = [0.9, 1.0]: each must be at least 0 and below 1"}},
    {"OneBeta",
     "[optimizer]\nbetas = [0.9]",
     {},
     {"r.toml:3: optimizer.betas = [0.9]: must be two numbers, as [0.9, 0.999]"}},
    {"NoRows",
     "[batch]\nmicro = 0",
     {},
     {"r.toml:3: batch.micro = 0: must be from 1 to 1000000000"}},
    {"ProbabilityAboveOne",
     "[generation]\ntop_p = 1.5",
     {},
     {"r.toml:3: generation.top_p = 1.5: must be above 0 and at most 1"}},
    {"EmptyCache", "[eval]\nevery = -1", {}, {"r.toml:3: eval.every = -1: must be at least 0"}},
    {"EmptyOutput", "", {"run.output="}, {"command line: run.output=: must not be empty"}},
    {"SizeThatIsNone",
     "[export]\nmax_shard_size = \"5 gigs\"",
     {},
     {"r.toml:3: export.max_shard_size = \"5 gigs\": must be a size, as \"5GB\" or \"800MiB\""}},
    {"PatternThatIsNone",
     "[train]\nfrozen = [\"(\"]",
     {},
     {"r.toml:3: train.frozen = [\"(\"]: \"(\" is not a regular expression (ECMAScript)"}},
    // Choices.
    {"ChoiceInCapitals",
     "",
     {"run.resume=Auto"},
     {"command line: run.resume=Auto: must be one of \"auto\", \"never\", \"must\" (nearest: "
      "\"auto\")"}},
    {"ScheduleMisspelt",
     "[schedule]\nkind = \"cosin\"",
     {},
     {"r.toml:3: schedule.kind = \"cosin\": must be " + kSchedules + " (nearest: \"cosine\")"}},
    {"ScheduleThatNeedsMetrics",
     "[schedule]\nkind = \"reduce_lr_on_plateau\"",
     {},
     {"r.toml:3: schedule.kind = \"reduce_lr_on_plateau\": must be " + kSchedules}},
    {"WordForDeterministic",
     "",
     {"run.deterministic=yes"},
     {"command line: run.deterministic=yes: must be true, false or \"layout\""}},
    {"UnknownExportFormat",
     "[export]\nformat = [\"safetensor\"]",
     {},
     {"r.toml:3: export.format = [\"safetensor\"]: \"safetensor\" is not one of \"safetensors\", "
      "\"gguf\" (nearest: "
      "\"safetensors\")"}},
    // Rules across keys.
    {"BatchThatDoesNotDivide",
     "[batch]\nglobal = 10\nmicro = 4",
     {},
     {"r.toml:3: batch.global = 10: must be a multiple of batch.micro x data-parallel ranks = 4 x "
      "1 = 4 (nearest: 8 or 12)"}},
    {"MicroAboveGlobal",
     "[batch]\nmicro = 100",
     {},
     {"r.toml:3: batch.micro = 100: batch.global = 64 must be a multiple of batch.micro x "
      "data-parallel ranks = 100 x 1 = "
      "100 (nearest: 100)"}},
    {"StepsAndEpochs",
     "[train]\nsteps = 3\nepochs = 2",
     {},
     {"r.toml:3: train.steps = 3: train.epochs is given too: leave one out"}},
    {"RunNameIsAPath",
     "",
     {"run.name=a/b"},
     {"command line: run.name=a/b: must be the plain name of a directory, without '/' and at most "
      "200 bytes long"}},
    {"RunNameIsTheParent",
     "",
     {"run.name=.."},
     {"command line: run.name=..: must be the plain name of a directory, without '/' and at most "
      "200 bytes long"}},
    {"KeyOfAnotherSchedule",
     "[schedule]\npower = 2",
     {},
     {"r.toml:3: schedule.power = 2: belongs to polynomial, not to schedule.kind = \"cosine\""}},
    {"NoLowestRate",
     "[schedule]\nkind = \"cosine_with_min_lr\"",
     {},
     {"r.toml:3: schedule.kind = \"cosine_with_min_lr\": needs exactly one of schedule.min_lr and "
      "schedule.min_lr_rate"}},
    {"LowestRateAboveTheHighest",
     "[schedule]\nkind = \"cosine_with_min_lr\"\nmin_lr = 0.1\n[optimizer]\nlr = 0.01",
     {},
     {"r.toml:4: schedule.min_lr = 0.1: must be at most optimizer.lr = 0.01"}},
    {"LowestRateAboveTheObjectivesOwn",
     "[schedule]\nkind = \"cosine_with_min_lr\"\nmin_lr = 0.1",
     {},
     {"r.toml:4: schedule.min_lr = 0.1: must be at most optimizer.lr = 2e-05"}},
    {"NoDecaySteps",
     "[schedule]\nkind = \"warmup_stable_decay\"",
     {},
     {"r.toml:3: schedule.kind = \"warmup_stable_decay\": needs schedule.num_decay_steps"}},
    {"DecayLongerThanTraining",
     "[schedule]\nkind = \"warmup_stable_decay\"\nnum_decay_steps = 90\nwarmup = "
     "20\n[train]\nsteps = 100",
     {},
     {"r.toml:4: schedule.num_decay_steps = 90: warm-up and decay must fit into train.steps = "
      "100"}},
    {"FractionalWarmupSteps",
     "[schedule]\nwarmup = 1.5",
     {},
     {"r.toml:3: schedule.warmup = 1.5: must be a fraction below 1 or a whole number of steps"}},
    {"WarmupOfAConstantRate",
     "[schedule]\nkind = \"constant\"\nwarmup = 10",
     {},
     {"r.toml:4: schedule.warmup = 10: has no effect with schedule.kind = \"constant\": take "
      "\"constant_with_warmup\""}},
    {"MomentumOfAdamW",
     "[optimizer]\nmomentum = 0.9",
     {},
     {"r.toml:3: optimizer.momentum = 0.9: belongs to sgd, not to adamw (its momentum is "
      "betas[0])"}},
    {"BetasOfSgd",
     "[optimizer]\nkind = \"sgd\"\nbetas = [0.8, 0.9]",
     {},
     {"r.toml:4: optimizer.betas = [0.8, 0.9]: belongs to adamw, not to sgd"}},
    {"BestWithoutEvaluation",
     "[checkpoint]\nbest = true",
     {},
     {"r.toml:3: checkpoint.best = true: needs [[data.eval]]"}},
    {"PatienceWithoutEvaluation",
     "",
     {"eval.early_stopping_patience=2"},
     {"command line: eval.early_stopping_patience=2: needs [[data.eval]]"}},
    {"AccuracyTheWrongWayRound",
     "[[data.eval]]\npath = \"e\"\n[checkpoint]\nbest = true\n[eval]\nmetric = "
     "\"eval_mean_token_accuracy\"",
     {},
     {"r.toml:7: eval.metric = \"eval_mean_token_accuracy\": of eval_mean_token_accuracy the "
      "greater is better: "
      "eval.greater_is_better must be true"}},
    {"WindowWithoutPacking",
     "",
     {"data.packing=none", "data.packing_window=10"},
     {"command line: data.packing_window=10: has no effect with data.packing = \"none\""}},
    {"SourceWithoutPath",
     "[[data.eval]]\nweight = 1.0",
     {},
     {"r.toml:2: data.eval.0: needs a path: the rows to read"}},
    // What later versions bring.
    {"LaterObjective",
     "[objective]\nkind = \"dpo\"\nbeta = 0.1\nloss_type = [\"sigmoid\"]",
     {},
     {"r.toml:3: objective.kind = \"dpo\": not in this version, which has only \"sft\""}},
    {"KeyOfALaterObjective",
     "[objective]\nbeta = 0.1",
     {},
     {"r.toml:3: objective.beta = 0.1: " + kOnlySft}},
    {"UnknownKeyOfObjectives",
     "[objective]\nlos_type = \"nll\"",
     {},
     {"r.toml:3: objective.los_type = \"nll\": unknown key (nearest: objective.loss_type)"}},
    {"Rewards",
     "[[objective.rewards]]\nkind = \"length\"",
     {},
     {"r.toml:2: objective.rewards = [{...}]: rewards are not in this version, which has only "
      "objective.kind = \"sft\""}},
    {"Adapters", "[peft]\nr = 16\nfoo = 1", {}, {"r.toml:2: peft: " + kAdapters}},
    {"AdaptersTyped", "", {"peft.r=16"}, {"command line: peft.r=16: " + kAdapters}},
    {"Packing",
     "[data]\npacking = \"wrapped\"",
     {},
     {"r.toml:3: data.packing = \"wrapped\": not in this version, which has only \"none\", "
      "\"bfd\""}},
    {"Halves",
     "",
     {"train.precision=fp16", "model.dtype=fp16"},
     {"command line: train.precision=fp16: not in this version, which has only \"fp32\", \"bf16\"",
      "command line: model.dtype=fp16: not in this version, which has only \"fp32\", \"bf16\""}},
    {"Devices",
     "[train]\ndevice = \"cuda\"",
     {},
     {"r.toml:3: train.device = \"cuda\": not in this version, which has only \"auto\", \"cpu\""}},
    {"Axes",
     "[parallel]\nshard = 2\ntensor = 2\nzero = 1",
     {},
     {"r.toml:3: parallel.shard = 2: not in this version, which has only 1",
      "r.toml:4: parallel.tensor = 2: not in this version, which has only 1",
      "r.toml:5: parallel.zero = 1: not in this version, which has only \"auto\""}},
    {"Layouts",
     "",
     {"run.deterministic=layout"},
     {"command line: run.deterministic=layout: not in this version, which has only true, false"}},
    {"Gguf",
     "[export]\nformat = [\"safetensors\", \"gguf\"]",
     {},
     {"r.toml:3: export.format = [\"safetensors\", \"gguf\"]: not in this version, which has only "
      "[\"safetensors\"]"}},
    {"Weights",
     "",
     {"data.train.0.weight=0.5"},
     {"command line: data.train.0.weight=0.5: not in this version, which has only 1.0"}},
    {"Noise",
     "",
     {"train.neftune_noise_alpha=5"},
     {"command line: train.neftune_noise_alpha=5: not in this version, which has only 0.0"}},
    {"LaterOptimizer",
     "",
     {"optimizer.kind=lion"},
     {"command line: optimizer.kind=lion: not in this version, which has only \"adamw\", \"sgd\", "
      "\"adamw_8bit\", \"paged_adamw_8bit\""}},
    // The command line.
    {"NoEquals", "", {"optimizer.lr"}, {"command line: optimizer.lr: must be key=value"}},
    {"WordForANumberTyped",
     "",
     {"optimizer.lr=abc"},
     {"command line: optimizer.lr=abc: must be a number, above 0, or \"auto\""}},
    {"UnknownKeyTyped",
     "",
     {"optimizer.lrr=1"},
     {"command line: optimizer.lrr=1: unknown key (nearest: optimizer.lr)"}},
    {"TwoValuesTyped",
     "",
     {"optimizer.lr=1\nfoo=2"},
     {"command line: optimizer.lr=1 foo=2: must be a number, above 0, or \"auto\""}},
    {"IndexTooFar",
     "",
     {"data.train.2.path=x"},
     {"command line: data.train.2.path=x: data.train has 1 entry: the index must be at most 1, "
      "which appends"}},
    {"IndexForgotten",
     "",
     {"data.train.path=x"},
     {"command line: data.train.path=x: a list: say which entry, as data.train.0.path"}},
    {"EntryWithoutPath",
     "",
     {"data.eval.0.weight=1"},
     {"command line: data.eval.0.weight=1: needs a path: the rows to read"}},
    {"EntryReplacedWithoutPath",
     "",
     {"data.train.0={weight=1}"},
     {"command line: data.train.0={weight=1}: needs a path: the rows to read"}},
    {"NoUtf8Typed", "", {"run.name=\xff"}, {"command line: run.name=\xff: must be UTF-8 text"}},
    {"KeyOfTwoLines", "\"a\\nb\" = 1", {}, {"r.toml:2: a b = 1: unknown key"}},
    {"ExtendsTyped",
     "",
     {"extends=b.toml"},
     {"command line: extends=b.toml: stands in recipe files only"}},
    {"ScalarForATableTyped", "", {"model=3"}, {"command line: model=3: must be a table: [model]"}},
};

class BadInput : public testing::TestWithParam<Case> {};

TEST_P(BadInput, IsRefusedWithOneLineAFinding) {
  RecipeFiles files;
  files.write("least.toml", kLeast);
  files.write("r.toml", "extends = \"least.toml\"\n" + GetParam().toml);
  EXPECT_EQ(files.refusal("r.toml", GetParam().overrides), GetParam().answer);
}

INSTANTIATE_TEST_SUITE_P(Recipe, BadInput, testing::ValuesIn(kCases),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace temper::recipes
