#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/io/json.h"
#include "recipes/diagnostic.h"
#include "tests/parity/golden.h"
#include "trainer/rewards/reward.h"

namespace temper::trainer {
namespace {

// Made by make_rewards.py with trl 1.16.0: what its reward functions give. The scores are few
// operations on doubles in the same order: equal to the bit.
std::filesystem::path file(const std::string& area) {
  return golden_files("rewards") / (area + ".json");
}

data::Json cases(const std::string& area) {
  const data::Json cases = data::read_json(file(area)).at("cases");
  EXPECT_FALSE(cases.empty());
  return cases;
}

recipes::Reward reward_of(const std::string& kind) {
  recipes::Reward reward;
  reward.kind = kind;
  return reward;
}

double score(Reward& reward, const Completed& completed) {
  reward.submit(completed);
  return reward.collect().at(0);
}

TEST(RewardsParity, ThinkFormatEqualsTrl) {
  const auto reward = build_reward(reward_of("format"), 16);
  bool seen[2] = {false, false};
  for (const data::Json& golden : cases("think")) {
    Completed completed;
    completed.completion = golden.at("completion").get<std::string>();
    const auto expected = golden.at("score").get<double>();
    EXPECT_EQ(score(*reward, completed), expected) << golden.dump();
    seen[expected > 0] = true;
  }
  EXPECT_TRUE(seen[0] && seen[1]);
}

TEST(RewardsParity, SoftOverlongPunishmentEqualsTrl) {
  for (const data::Json& golden : cases("overlong")) {
    recipes::Reward recipe = reward_of("length");
    recipe.max = golden.at("max").get<int64_t>();
    recipe.soft = golden.at("soft").get<int64_t>();
    const auto reward = build_reward(recipe, 16);
    for (size_t i = 0; i < golden.at("lengths").size(); ++i) {
      Completed completed;
      completed.completion_ids.resize(golden.at("lengths")[i].get<size_t>());
      EXPECT_EQ(score(*reward, completed), golden.at("scores")[i].get<double>())
          << golden.at("lengths")[i] << " of " << *recipe.max << ", " << *recipe.soft;
    }
  }
}

TEST(RewardsParity, RepetitionPenaltyEqualsTrl) {
  for (const data::Json& golden : cases("repetition")) {
    recipes::Reward recipe = reward_of("repetition");
    recipe.ngram = golden.at("ngram").get<int64_t>();
    recipe.max_penalty = golden.at("max_penalty").get<double>();
    const auto reward = build_reward(recipe, 16);
    for (size_t i = 0; i < golden.at("rows").size(); ++i) {
      Completed completed;
      completed.completion_ids = golden.at("rows")[i].get<std::vector<int32_t>>();
      EXPECT_EQ(score(*reward, completed), golden.at("scores")[i].get<double>())
          << golden.at("rows")[i];
    }
  }
}

TEST(RewardsParity, AccuracyEqualsTrlWithMathVerify) {
  const auto reward = build_reward(reward_of("accuracy"), 16);
  for (const data::Json& golden : cases("accuracy")) {
    Completed completed;
    completed.completion = "Hence $\\boxed{" + golden.at("given").get<std::string>() + "}$.";
    completed.columns = {{"answer", golden.at("answer")}};
    EXPECT_EQ(score(*reward, completed), golden.at("score").get<double>()) << golden.dump();
  }
}

TEST(RewardsParity, ARewardModelScoresAsTransformersDoes) {
  recipes::Reward recipe = reward_of("model");
  recipe.path = (golden_files("rewards") / "model").string();
  const auto reward = build_reward(recipe, 16);
  const data::Json all = cases("scores");
  for (const data::Json& golden : all) {
    Completed completed;
    completed.prompt = golden.at("prompt").get<std::string>();
    completed.completion = golden.at("completion").get<std::string>();
    reward->submit(completed);
  }
  const std::vector<double> scores = reward->collect();
  ASSERT_EQ(scores.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    // Float32 in another order of sums, as in model_test.cpp.
    const auto expected = all[i].at("score").get<double>();
    EXPECT_NEAR(scores[i], expected, 1e-5 * std::max(1.0, std::abs(expected))) << all[i].dump();
  }
  EXPECT_EQ(reward->errors(), 0);

  Completed longer;
  longer.completion = std::string(33, '1');
  reward->submit(longer);
  reward->submit(Completed{});
  for (const double score : reward->collect()) EXPECT_TRUE(std::isnan(score));
  EXPECT_EQ(reward->errors(), 2);
}

TEST(RewardsParity, ALanguageModelIsNoRewardModel) {
  recipes::Reward recipe = reward_of("model");
  const std::filesystem::path source = std::getenv("TEMPER_SOURCE_DIR");
  for (const std::filesystem::path& path :
       {source / "configs/grpo_arithmetic", source / "nowhere"}) {
    recipe.path = path.string();
    try {
      build_reward(recipe, 16);
      FAIL() << path;
    } catch (const UserError& error) {
      EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace temper::trainer
