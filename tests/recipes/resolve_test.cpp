#include "recipes/resolve.h"

#include <gtest/gtest.h>

#include "recipes/schema.h"
#include "tests/recipes/recipe_files.h"

namespace temper::recipes {
namespace {

Recipe read_again(const Recipe& recipe) {
  RecipeFiles files;
  files.write("resolved.toml", to_toml(recipe));
  return files.read("resolved.toml");
}

TEST(ResolvedRecipe, ReadsBackAsItself) {
  RecipeFiles files;
  files.write("r.toml", kLeast);
  const Recipe recipe = files.read("r.toml");
  EXPECT_EQ(read_again(recipe), recipe);
}

TEST(ResolvedRecipe, KeepsEveryBitAndEveryCharacter) {
  RecipeFiles files;
  files.write("r.toml", kLeast);
  Recipe recipe = files.read("r.toml");
  recipe.model.path = "a \"quoted\" \\ path\twith\nlines and \xc3\xa9\x01";
  recipe.optimizer.lr = 0.1 + 0.2;
  recipe.optimizer.eps = 1e-300;
  recipe.generation.stop = {"\n", "]", "\x7f"};
  recipe.train.steps = 12;
  recipe.train.threads = 3;
  recipe.run.deterministic = Deterministic::kFalse;
  recipe.data.train[0].columns = {{"prompt", "a.b c"}, {"completion", "\"x\""}};
  recipe.data.eval = {{.path = "e1", .weight = 1.0, .columns = {}},
                      {.path = "e2", .weight = 1.0, .columns = {}}};
  recipe.schedule.kind = "warmup_stable_decay";
  recipe.schedule.warmup = 2;
  recipe.schedule.num_decay_steps = 5;
  recipe.schedule.decay_type = "1-sqrt";
  EXPECT_EQ(read_again(recipe), recipe);
}

TEST(ResolvedRecipe, WritesEveryKey) {
  const std::string text = "\n" + to_toml(resolve(Recipe{}));
  for (const Key& key : keys()) {
    // Of a method or kind: peft_test.cpp, objective_test.cpp.
    if (key.name.starts_with("peft.") || key.name.starts_with("objective.")) continue;
    const std::string last = key.name.substr(key.name.find('.') + 1);
    EXPECT_NE(text.find("\n" + last + " = "), std::string::npos) << key.name;
  }
}

TEST(ResolvedRecipe, HasTheObjectivesLearningRate) {
  EXPECT_EQ(resolve(Recipe{}).optimizer.lr, 2e-5);
  Recipe recipe;
  recipe.model.adapter = "runs/a/export";
  EXPECT_EQ(resolve(recipe).optimizer.lr, 2e-4);
  recipe.model.adapter = "";
  recipe.peft.method = "ia3";
  EXPECT_EQ(resolve(recipe).optimizer.lr, 2e-4);
  recipe.optimizer.lr = 1e-3;
  EXPECT_EQ(resolve(recipe).optimizer.lr, 1e-3);
}

TEST(Differences, NameKeyBothValuesAndWhetherARunMayGoOn) {
  Recipe before = resolve(Recipe{});
  before.data.train = {{.path = "a", .weight = 1.0, .columns = {}}};
  Recipe after = before;
  EXPECT_TRUE(differences(before, after).empty());
  after.optimizer.lr = 1e-4;
  after.train.steps = 100;
  after.export_.dtype = "bf16";
  after.data.train[0].path = "b";
  const std::vector<Difference> found = differences(before, after);
  ASSERT_EQ(found.size(), 4u);
  const auto expect = [&](size_t i, const char* key, const char* old_value, const char* new_value,
                          bool may_differ) {
    EXPECT_EQ(found[i].key, key);
    EXPECT_EQ(found[i].before, old_value);
    EXPECT_EQ(found[i].after, new_value);
    EXPECT_EQ(found[i].may_differ_on_resume, may_differ);
  };
  expect(0, "optimizer.lr", "2e-05", "1e-04", false);
  expect(1, "train.steps", "\"auto\"", "100", true);
  expect(2, "export.dtype", "\"auto\"", "\"bf16\"", true);
  expect(3, "data.train.0.path", "\"a\"", "\"b\"", false);
}

TEST(Differences, SeeSourcesThatCameOrWent) {
  Recipe before = resolve(Recipe{});
  Recipe after = before;
  after.data.eval = {{.path = "e", .weight = 1.0, .columns = {}}};
  const std::vector<Difference> found = differences(before, after);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].key, "data.eval.0.path");
  EXPECT_EQ(found[0].before, "");
  EXPECT_EQ(found[0].after, "\"e\"");
  EXPECT_FALSE(found[0].may_differ_on_resume);
}

}  // namespace
}  // namespace temper::recipes
