#include "trainer/rollouts/prompts.h"

#include <gtest/gtest.h>

namespace temper::trainer {
namespace {

using Ids = std::vector<int32_t>;

TEST(PromptOf, IsAllBeforeTheLastSupervisedRun) {
  EXPECT_EQ(prompt_of({{1, 2, 3, 4}, {0, 0, 1, 1}}), (Ids{1, 2}));
  // A conversation of two answers; the template's closing token is not supervised.
  EXPECT_EQ(prompt_of({{1, 2, 3, 4, 5, 6, 7}, {0, 1, 0, 0, 1, 1, 0}}), (Ids{1, 2, 3, 4}));
}

TEST(PromptOf, OfATextIsItsFirstToken) {
  EXPECT_EQ(prompt_of({{1, 2, 3}, {1, 1, 1}}), (Ids{1}));
}

TEST(PromptOf, OfAPromptIsTheWhole) {
  const data::Example prompt{{1, 2, 3}, {0, 0, 0}};
  EXPECT_FALSE(has_completion(prompt));
  EXPECT_EQ(prompt_of(prompt), prompt.ids);
  // The first token is never a target.
  EXPECT_FALSE(has_completion({{1, 2}, {1, 0}}));
  EXPECT_TRUE(has_completion({{1, 2}, {0, 1}}));
}

}  // namespace
}  // namespace temper::trainer
