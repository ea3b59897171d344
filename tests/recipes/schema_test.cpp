#include "recipes/schema.h"

#include <set>

#include <gtest/gtest.h>

#include "recipes/validate.h"

namespace temper::recipes {
namespace {

TEST(Schema, NamesEachKeyOnce) {
  std::set<std::string> names;
  for (const Key& key : keys()) EXPECT_TRUE(names.insert(key.name).second) << key.name;
}

TEST(Schema, SaysWhatEachKeyMeans) {
  for (const Key& key : keys()) {
    ASSERT_FALSE(key.meaning.empty()) << key.name;
    EXPECT_EQ(key.meaning.back(), '.') << key.name;
  }
}

TEST(Schema, AllowsItsOwnDefaults) {
  for (const Key& key : keys()) {
    const Value value = key.get(Recipe{});
    const bool needed =
        key.name == "run.name" || key.name == "model.path" || key.name == "peft.method";
    if (!needed) {
      EXPECT_EQ(problem_with(key, value), "") << key.name;
    }
    EXPECT_EQ(not_yet(key, value), "") << key.name;
  }
}

TEST(Schema, StoresWhatItReads) {
  for (const Key& key : keys()) {
    Recipe recipe;
    key.set(recipe, key.get(recipe));
    EXPECT_EQ(recipe, Recipe{}) << key.name;
  }
}

TEST(Schema, WorksOnlyWithValuesThatAreAllowed) {
  for (const Key& key : keys()) {
    for (Value value : key.works) {
      if (value == Value{"pissa_niter_<k>"}) value = "pissa_niter_4";
      EXPECT_EQ(problem_with(key, value), "") << key.name;
      EXPECT_EQ(not_yet(key, value), "") << key.name;
    }
  }
}

TEST(Schema, RefusesWhatDoesNotWorkYetButNotWhatIsUnset) {
  KeyInfo method = *find_key("peft.method");
  method.works = {"lora", "ia3"};
  EXPECT_EQ(not_yet(method, Value{"ia3"}), "");
  EXPECT_EQ(not_yet(method, Value{""}), "");
  EXPECT_EQ(not_yet(method, Value{"oft"}), "not in this version, which has only \"lora\", \"ia3\"");
  KeyInfo dropout = *find_key("peft.lora_dropout");
  dropout.works = {0.0};
  EXPECT_EQ(not_yet(dropout, Value{}), "");
}

TEST(Resume, AllowsOtherOutputsAndLayoutsButNotOtherMathematics) {
  for (const char* key : {"run.resume", "run.overwrite", "log.every", "eval.metric",
                          "checkpoint.keep", "export.dtype", "parallel.replicate", "train.device",
                          "train.threads", "train.steps", "train.epochs"}) {
    EXPECT_TRUE(may_differ_on_resume(key)) << key;
  }
  for (const char* key : {"run.seed", "optimizer.lr", "batch.micro", "data.eval.0.path",
                          "train.precision", "peft.method", "peft.r", "peft.eva_config.rho"}) {
    EXPECT_FALSE(may_differ_on_resume(key)) << key;
  }
}

TEST(NearestMultiples, LieOnBothSides) {
  EXPECT_EQ(nearest_multiples(64, 12), (std::pair<int64_t, int64_t>{60, 72}));
  EXPECT_EQ(nearest_multiples(3, 12), (std::pair<int64_t, int64_t>{0, 12}));
}

TEST(DataParallelRanks, AreWhatTheModelParallelAxesLeave) {
  EXPECT_EQ(data_parallel_ranks(Parallel{}, 8), 8);
  Parallel axes;
  axes.shard = 2;
  axes.tensor = 4;
  EXPECT_EQ(data_parallel_ranks(axes, 16), 4);
}

}  // namespace
}  // namespace temper::recipes
