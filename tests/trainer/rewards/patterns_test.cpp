#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/rewards/scoring.h"
#include "trainer/rewards/registry.h"

namespace temper::trainer {
namespace {

std::unique_ptr<Reward> with_pattern(const std::string& kind, const std::string& pattern) {
  recipes::Reward recipe = reward_of(kind);
  recipe.pattern = pattern;
  return build_reward(recipe, 16);
}

std::string refusal(const recipes::Reward& recipe) {
  try {
    build_reward(recipe, 16);
  } catch (const UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Format, ThinkIsTheDefault) {
  const auto reward = build_reward(reward_of("format"), 16);
  EXPECT_EQ(score(*reward, "<think>\nReasons.\n</think>\nAnswer."), 1.0);
  EXPECT_EQ(score(*reward, "<think></think>"), 1.0);
  EXPECT_EQ(score(*reward, " <think>a</think>b"), 0.0);
  EXPECT_EQ(score(*reward, "<think>a<think>b</think>c"), 0.0);
  EXPECT_EQ(score(*reward, "<think>a</think>b<think>"), 0.0);
  EXPECT_EQ(score(*reward, "<think>a</think>b</think>c"), 1.0);
  EXPECT_EQ(score(*reward, "<think>a"), 0.0);
  EXPECT_EQ(score(*reward, ""), 0.0);
}

TEST(Format, AnExpressionStandsForTheWholeCompletion) {
  const auto reward = with_pattern("format", "<a>.*</a>\n<b>\\d+</b>");
  EXPECT_EQ(score(*reward, "<a>two\nlines</a>\n<b>42</b>"), 1.0);
  EXPECT_EQ(score(*reward, "<a>x</a>\n<b>42</b> and more"), 0.0);
  EXPECT_EQ(score(*reward, "well: <a>x</a>\n<b>42</b>"), 0.0);
  EXPECT_EQ(score(*with_pattern("format", "a|ab"), "ab"), 1.0);
  EXPECT_EQ(score(*with_pattern("format", "a$"), "a\n"), 0.0);
}

TEST(Regex, OneWhenFound) {
  const auto reward = with_pattern("regex", "(?i)answer:\\s*\\d+");
  EXPECT_EQ(score(*reward, "So\nAnswer: 42."), 1.0);
  EXPECT_EQ(score(*reward, "Answer unknown"), 0.0);
  EXPECT_EQ(score(*with_pattern("regex", "a.b"), "a\nb"), 0.0);
  EXPECT_EQ(score(*with_pattern("regex", "(?s)a.b"), "a\nb"), 1.0);
  EXPECT_EQ(score(*with_pattern("regex", "^\\w+$"), "größe"), 1.0);
}

TEST(Regex, BytesThatAreNoTextAreSearchedAround) {
  EXPECT_EQ(score(*with_pattern("regex", "4\\d"), "\xff\xc3 42 \xe2\x82"), 1.0);
}

TEST(Regex, EndlessBacktrackingGivesNoScoreAndIsCounted) {
  const auto reward = with_pattern("regex", "^(x+x+)+[yz]$");
  EXPECT_TRUE(std::isnan(score(*reward, std::string(4000, 'x'))));
  EXPECT_EQ(reward->errors(), 1);
  EXPECT_NE(reward->last_error().find("4000 bytes"), std::string::npos) << reward->last_error();
}

TEST(Patterns, WrongOnesAreRefusedWithKeyAndPosition) {
  for (const char* kind : {"format", "regex"}) {
    recipes::Reward recipe = reward_of(kind);
    recipe.name = "shape";
    recipe.pattern = "a(b";
    const std::string line = refusal(recipe);
    EXPECT_NE(line.find("\"shape\": pattern"), std::string::npos) << line;
    EXPECT_NE(line.find("character 3"), std::string::npos) << line;
  }
  EXPECT_NE(refusal(reward_of("regex")).find("missing"), std::string::npos);
}

TEST(Rewards, UnknownKindsAreRefusedWithTheNearest) {
  const std::string line = refusal(reward_of("acuracy"));
  EXPECT_NE(line.find("did you mean \"accuracy\"?"), std::string::npos) << line;
}

TEST(Rewards, AreCalledByNameOrKind) {
  recipes::Reward recipe = reward_of("format");
  EXPECT_EQ(name_of(recipe), "format");
  recipe.name = "thinks";
  EXPECT_EQ(name_of(recipe), "thinks");
}

TEST(Rewards, EachRowOfTheTableHasItsSentence) {
  for (const RewardRow& row : rewards())
    EXPECT_GT(std::string(row.sentence).size(), 20u) << row.kind;
}

}  // namespace
}  // namespace temper::trainer
