#include <gtest/gtest.h>

#include "tests/recipes/recipe_files.h"

/// Files that extend each other, overrides, and what a recipe needs for which purpose.
namespace temper::recipes {
namespace {

using Lines = std::vector<std::string>;

TEST(Recipe, KeepsDefaultsForWhatIsNotWritten) {
  RecipeFiles files;
  files.write("r.toml", kLeast);
  const Recipe recipe = files.read("r.toml");
  Recipe expected;
  expected.run.name = "test";
  expected.model.path = "models/tiny";
  expected.data.train = {{.path = "rows.jsonl", .weight = 1.0, .columns = {}}};
  expected.optimizer.lr = 2e-5;
  expected.objective.loss_type = "nll";
  EXPECT_EQ(recipe, expected);
}

TEST(Recipe, ReadsEveryTypeOfValue) {
  RecipeFiles files;
  files.write("r.toml", kLeast +
                            "columns = { prompt = \"question\", completion = \"answer\" }\n"
                            "[optimizer]\nlr = 1\nbetas = [0, 0.5]\n"
                            "[generation]\ntop_k = 5\nstop = [\"a\", \"b\"]\n"
                            "[train]\nthreads = \"auto\"\nprecision = \"fp32\"\n"
                            "[log]\ntensorboard = false\n");
  const Recipe recipe = files.read("r.toml", {"run.deterministic=false"});
  EXPECT_EQ(recipe.data.train.at(0).columns.at("prompt"), "question");
  EXPECT_EQ(recipe.optimizer.lr, 1.0);
  EXPECT_EQ(recipe.optimizer.betas, (std::vector<double>{0, 0.5}));
  EXPECT_EQ(recipe.generation.top_k, 5);
  EXPECT_EQ(recipe.generation.stop, (Lines{"a", "b"}));
  EXPECT_FALSE(recipe.train.threads.has_value());
  EXPECT_EQ(recipe.train.precision, Dtype::kFp32);
  EXPECT_FALSE(recipe.log.tensorboard);
  EXPECT_EQ(recipe.run.deterministic, Deterministic::kFalse);
}

TEST(Recipe, SaysEverythingAtOnceInReadingOrder) {
  RecipeFiles files;
  files.write(
      "r.toml",
      "[train]\nsteps = \"x\"\n\n[batch]\nmicro = 0\n[optimizer]\nlr = -1\n[log]\nevry = 1\n");
  EXPECT_EQ(
      files.refusal("r.toml", {"log.every=0"}),
      (Lines{
          "r.toml:2: train.steps = \"x\": must be a whole number of steps, at least 1, or \"auto\"",
          "r.toml:5: batch.micro = 0: must be from 1 to 1000000000",
          "r.toml:7: optimizer.lr = -1: must be above 0",
          "r.toml:9: log.evry = 1: unknown key (nearest: log.every)",
          "command line: log.every=0: must be at least 1",
          "r.toml: model.path: needed: the directory of the model",
          "r.toml: data.train: needed: [[data.train]] with the path of the rows to train on",
          "r.toml: run.name: needed: the run's directory is run.output/run.name"}));
}

// ---- files -------------------------------------------------------------------------------------

TEST(RecipeFile, ThatCannotBeReadIsOneLine) {
  RecipeFiles files;
  EXPECT_EQ(files.refusal("absent.toml"), (Lines{"absent.toml: no such file"}));
  files.write("directory/inner.toml", "");
  EXPECT_EQ(files.refusal("directory"), (Lines{"directory: a directory, not a recipe"}));
}

TEST(RecipeFile, ThatIsNoTomlIsOneLineWithLineAndColumn) {
  RecipeFiles files;
  const std::pair<const char*, const char*> cases[] = {
      {"[run]\nname = \n", "r.toml:2: column 8: not TOML: "},
      {"[run\nname = 1\n", "r.toml:1: column 5: not TOML: "},
      {"[run]\nname = \"x\"\nname = \"y\"\n", "r.toml:3: column "},
      {"[run]\nname = \"\xff\"\n", "r.toml:2: column 8: not TOML: "},
      {"a = [1,", "r.toml:1: column 8: not TOML: "},
      {"run.seed = 99999999999999999999\n", "r.toml:1: column "},
  };
  for (const auto& [text, start] : cases) {
    files.write("r.toml", text);
    const Lines lines = files.refusal("r.toml");
    ASSERT_EQ(lines.size(), 1u) << text;
    EXPECT_EQ(lines[0].substr(0, std::string(start).size()), start);
    EXPECT_EQ(lines[0].find('\n'), std::string::npos);
  }
}

// ---- extends -----------------------------------------------------------------------------------

TEST(Extends, TakesTheOthersFirstInOrder) {
  RecipeFiles files;
  files.write("a.toml", kLeast + "[batch]\nglobal = 8\nmicro = 2\n[log]\nevery = 1\n");
  files.write("b.toml", "[batch]\nglobal = 16\n");
  files.write("r.toml", "extends = [\"a.toml\", \"b.toml\"]\n[log]\nevery = 3\n");
  const Recipe recipe = files.read("r.toml");
  EXPECT_EQ(recipe.batch.global, 16);
  EXPECT_EQ(recipe.batch.micro, 2);
  EXPECT_EQ(recipe.log.every, 3);
}

TEST(Extends, IsRelativeToTheRecipeThatSaysIt) {
  RecipeFiles files;
  files.write("base/deep/root.toml", kLeast);
  files.write("base/middle.toml", "extends = \"deep/root.toml\"");
  files.write("r.toml", "extends = \"base/middle.toml\"");
  EXPECT_EQ(files.read("r.toml").model.path, "models/tiny");
}

TEST(Extends, ReplacesTheListOfSources) {
  RecipeFiles files;
  files.write("a.toml",
              kLeast + "columns = { text = \"body\" }\n[[data.train]]\npath = \"more.jsonl\"\n");
  files.write("r.toml", "extends = \"a.toml\"\n[[data.train]]\npath = \"mine.jsonl\"\n");
  const Recipe recipe = files.read("r.toml");
  ASSERT_EQ(recipe.data.train.size(), 1u);
  EXPECT_EQ(recipe.data.train[0].path, "mine.jsonl");
  EXPECT_TRUE(recipe.data.train[0].columns.empty());
}

TEST(Extends, LetsTheSameBaseComeTwice) {
  RecipeFiles files;
  files.write("root.toml", kLeast);
  files.write("a.toml", "extends = \"root.toml\"");
  files.write("b.toml", "extends = \"root.toml\"");
  files.write("r.toml", "extends = [\"a.toml\", \"b.toml\"]");
  EXPECT_EQ(files.read("r.toml").run.name, "test");
}

TEST(Extends, RefusesACycle) {
  RecipeFiles files;
  files.write("a.toml", "extends = \"b.toml\"");
  files.write("b.toml", "extends = \"a.toml\"");
  EXPECT_EQ(files.refusal("a.toml"), (Lines{"b.toml:1: extends = \"a.toml\": recipes extend each "
                                            "other: a.toml -> b.toml -> a.toml"}));
  files.write("self.toml", "\nextends = \"self.toml\"");
  EXPECT_EQ(files.refusal("self.toml"), (Lines{"self.toml:2: extends = \"self.toml\": recipes "
                                               "extend each other: self.toml -> self.toml"}));
}

TEST(Extends, RefusesWhatIsNotThere) {
  RecipeFiles files;
  files.write("r.toml", "extends = [\"b.toml\"]");
  EXPECT_EQ(files.refusal("r.toml"), (Lines{"r.toml:1: extends = [\"b.toml\"]: b.toml: no such "
                                            "file (extends is relative to the directory of the "
                                            "recipe that says it)"}));
  files.write("r.toml", "extends = 3");
  EXPECT_EQ(files.refusal("r.toml"),
            (Lines{"r.toml:1: extends = 3: must be a string or a list of strings"}));
}

TEST(Extends, NamesTheFileOfAFinding) {
  RecipeFiles files;
  files.write("base.toml", kLeast + "[log]\nevery = 0\n");
  files.write("r.toml", "extends = \"base.toml\"\n[batch]\nmicro = 0\n");
  EXPECT_EQ(files.refusal("r.toml"),
            (Lines{"base.toml:8: log.every = 0: must be at least 1",
                   "r.toml:3: batch.micro = 0: must be from 1 to 1000000000"}));
}

// ---- overrides ---------------------------------------------------------------------------------

TEST(Overrides, AreReadByTheTypeOfTheKey) {
  RecipeFiles files;
  files.write("r.toml", kLeast);
  const Recipe recipe = files.read(
      "r.toml", {"optimizer.lr=1e-4", "run.name=true", "run.output=3", "log.tensorboard=false",
                 "optimizer.betas=[0.8, 0.9]", "train.frozen=[\"embed\"]", "train.threads=2",
                 "model.path=a=b", "data.cache=\"with space\""});
  EXPECT_EQ(recipe.optimizer.lr, 1e-4);
  EXPECT_EQ(recipe.run.name, "true");
  EXPECT_EQ(recipe.run.output, "3");
  EXPECT_FALSE(recipe.log.tensorboard);
  EXPECT_EQ(recipe.optimizer.betas, (std::vector<double>{0.8, 0.9}));
  EXPECT_EQ(recipe.train.frozen, (Lines{"embed"}));
  EXPECT_EQ(recipe.train.threads, 2);
  EXPECT_EQ(recipe.model.path, "a=b");
  EXPECT_EQ(recipe.data.cache, "with space");
}

TEST(Overrides, TheLaterOneWins) {
  RecipeFiles files;
  files.write("r.toml", kLeast + "[log]\nevery = 1\n");
  EXPECT_EQ(files.read("r.toml", {"log.every=2", "log.every=3"}).log.every, 3);
  EXPECT_FALSE(
      files.read("r.toml", {"train.threads=3", "train.threads=auto"}).train.threads.has_value());
}

TEST(Overrides, ChangeAndAppendSources) {
  RecipeFiles files;
  files.write("r.toml", kLeast + "columns = { prompt = \"p\" }\n");
  const Recipe recipe =
      files.read("r.toml", {"data.train.0.path=new.jsonl", "data.train.0.columns.completion=c",
                            "data.train.1.path=more.jsonl", "data.eval.0.path=e.jsonl"});
  ASSERT_EQ(recipe.data.train.size(), 2u);
  EXPECT_EQ(recipe.data.train[0].path, "new.jsonl");
  EXPECT_EQ(recipe.data.train[0].columns,
            (std::map<std::string, std::string>{{"prompt", "p"}, {"completion", "c"}}));
  EXPECT_EQ(recipe.data.train[1].path, "more.jsonl");
  ASSERT_EQ(recipe.data.eval.size(), 1u);
}

TEST(Overrides, MayBeTables) {
  RecipeFiles files;
  files.write("r.toml", kLeast);
  const Recipe recipe =
      files.read("r.toml", {"data.train=[{path=\"x\"}, {path=\"y\"}]", "data.train.1={path=\"z\"}",
                            "batch={global=8, micro=2}"});
  ASSERT_EQ(recipe.data.train.size(), 2u);
  EXPECT_EQ(recipe.data.train[1].path, "z");
  EXPECT_EQ(recipe.batch, (Batch{.global = 8, .micro = 2}));
}

TEST(Overrides, OfStepsReplaceTheFilesEpochsAndTheOtherWayRound) {
  RecipeFiles files;
  files.write("epochs.toml", kLeast + "[train]\nepochs = 3\n");
  const Recipe steps = files.read("epochs.toml", {"train.steps=7"});
  EXPECT_EQ(steps.train.steps, 7);
  EXPECT_EQ(steps.train.epochs, 1);
  files.write("steps.toml", kLeast + "[train]\nsteps = 3\n");
  const Recipe epochs = files.read("steps.toml", {"train.epochs=2"});
  EXPECT_FALSE(epochs.train.steps.has_value());
  EXPECT_EQ(epochs.train.epochs, 2);
}

// ---- purpose and ranks -------------------------------------------------------------------------

TEST(Purpose, SaysWhatIsNeeded) {
  RecipeFiles files;
  files.write("r.toml", "[model]\npath = \"m\"\n[[data.train]]\npath = \"rows.jsonl\"\n");
  EXPECT_EQ(files.refusal("r.toml", {}, {.purpose = Purpose::kPrepare}), Lines{});
  EXPECT_EQ(files.refusal("r.toml", {}, {.purpose = Purpose::kTrain}),
            (Lines{"r.toml: run.name: needed: the run's directory is run.output/run.name"}));
  EXPECT_EQ(
      files.refusal("r.toml", {}, {.purpose = Purpose::kEval}),
      (Lines{"r.toml: data.eval: needed: [[data.eval]] with the path of the rows to evaluate on"}));
}

TEST(Ranks, MustDivideTheGlobalBatch) {
  RecipeFiles files;
  files.write("r.toml", kLeast);
  EXPECT_EQ(files.refusal("r.toml", {}, {.world_size = 4}), Lines{});
  EXPECT_EQ(files.refusal("r.toml", {}, {.world_size = 3}),
            (Lines{"r.toml: batch.global = 64: must be a multiple of batch.micro x data-parallel "
                   "ranks = 4 x 3 = 12 "
                   "(nearest: 60 or 72)"}));
  EXPECT_EQ(files.refusal("r.toml", {"batch.global=2"}, {.world_size = 3}),
            (Lines{"command line: batch.global=2: must be a multiple of batch.micro x "
                   "data-parallel ranks = 4 x 3 = 12 "
                   "(nearest: 12)"}));
  EXPECT_EQ(files.refusal("r.toml", {}, {.purpose = Purpose::kPrepare, .world_size = 3}), Lines{});
}

TEST(Ranks, ArePowersOfTwoInLayoutExactRuns) {
  RecipeFiles files;
  files.write("r.toml", kLeast);
  const Lines exact = {"batch.global=48", "run.deterministic=layout"};
  EXPECT_EQ(files.refusal("r.toml", exact, {.world_size = 4}), Lines{});
  EXPECT_EQ(files.refusal("r.toml", exact, {.world_size = 3}),
            (Lines{"command line: run.deterministic=layout: needs a power of two of data-parallel "
                   "ranks, not 3 (nearest: 2 or 4)"}));
}

TEST(Ranks, MustBeTheProductOfTheAxes) {
  RecipeFiles files;
  files.write("r.toml", kLeast + "[parallel]\nreplicate = 2\n");
  EXPECT_EQ(files.refusal("r.toml", {}, {.world_size = 2}), Lines{});
  EXPECT_EQ(files.refusal("r.toml", {}, {.world_size = 4}),
            (Lines{"r.toml:8: parallel.replicate = 2: the product of the axes is 2, but there are "
                   "4 ranks (\"auto\" takes "
                   "what the others leave)"}));
}

TEST(Ranks, NamesTheNearestShards) {
  RecipeFiles files;
  files.write("r.toml", kLeast + "[parallel]\nshard = 3\nzero = 1\n");
  EXPECT_EQ(files.refusal("r.toml", {"batch.global=24"}, {.world_size = 6}), Lines{});
  EXPECT_EQ(files.refusal("r.toml", {"batch.global=24"}, {.world_size = 8}),
            (Lines{"r.toml:8: parallel.shard = 3: the product of the axes is 3, but there are 8 "
                   "ranks (\"auto\" takes what the others leave; nearest: parallel.shard = 2 or 4)"}));
}

}  // namespace
}  // namespace temper::recipes
