#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/trainer/rewards/scoring.h"

namespace temper::trainer {
namespace {

double accuracy(const std::string& answer, const std::string& completion) {
  const auto reward = build_reward(reward_of("accuracy"), 16);
  Completed completed;
  completed.completion = completion;
  completed.columns = {{"answer", answer}};
  reward->submit(completed);
  return reward->collect().at(0);
}

std::string boxed(const std::string& answer) { return "Hence $\\boxed{" + answer + "}$."; }

struct Case {
  const char* answer;
  const char* given;
  double reward;
};

constexpr Case kBoxed[] = {
    // numbers
    {"42", "42", 1},
    {"42", "43", 0},
    {"42", "-42", 0},
    {"-42", "-42", 1},
    {"-42", "−42", 1},
    {"+7", "7", 1},
    {"1000", "1,000", 1},
    {"1,000", "1000", 1},
    {"1000", "1e3", 1},
    {"1000", "10^3", 1},
    {"1000", "1{,}000", 1},
    {"10000", "10\\,000", 1},
    {"1234567", "1,234,567", 1},
    {"1234567", "1,234,568", 0},
    {"1000", "1.000", 0},
    {"3.5", "3.50", 1},
    {"0.5", ".5", 1},
    {"5", "5.", 1},
    {"007", "7", 1},
    {"123456789012345678901234567890", "123456789012345678901234567890", 1},
    {"123456789012345678901234567890", "123456789012345678901234567891", 0},
    {"1.5\\times10^{-3}", "0.0015", 1},
    {"2 \\cdot 10^8", "200000000", 1},
    // fractions
    {"1/2", "0.5", 1},
    {"\\frac{1}{2}", "1/2", 1},
    {"\\frac12", "\\dfrac{1}{2}", 1},
    {"\\frac{2}{4}", "\\tfrac{1}{2}", 1},
    {"-\\frac{1}{2}", "\\frac{-1}{2}", 1},
    {"\\frac{1}{3}", "\\frac{1}{2}", 0},
    {"\\frac{1}{3}", "0.33", 0},
    {"\\frac{1}{3}", "0.333333", 1},
    {"\\frac{2}{3}", "0.666667", 1},
    {"\\frac{2}{3}", "0.666666", 0},
    {"1\\frac{1}{2}", "1.5", 1},
    {"\\frac{3}{2}", "1 1/2", 1},
    {"3:4", "6:8", 1},
    // percent, money, units, degrees
    {"50%", "50\\%", 1},
    {"50%", "0.5", 1},
    {"50", "50\\%", 1},
    {"50%", "0.6", 0},
    {"\\$18.00", "18", 1},
    {"18", "\\$18", 1},
    {"€5", "5", 1},
    {"18", "18 \\text{ dollars}", 1},
    {"18 dollars", "18", 1},
    {"12\\text{ cm}^2", "12", 1},
    {"9.8", "9.8 \\text{ m/s}^2", 1},
    {"5 m", "5\\,\\mathrm{m}", 1},
    {"60", "60^\\circ", 1},
    {"60^{\\circ}", "60°", 1},
    {"2x", "2", 0},
    {"2xy", "2", 0},
    // roots, powers, constants, functions
    {"\\sqrt{12}", "2\\sqrt{3}", 1},
    {"\\sqrt2", "\\sqrt{2}", 1},
    {"\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", 1},
    {"\\sqrt{4}", "2", 1},
    {"\\sqrt[3]{8}", "2", 1},
    {"\\sqrt[3]{-8}", "-2", 1},
    {"2^{10}", "1024", 1},
    {"2^10", "1024", 1},
    {"10^{-2}", "0.01", 1},
    {"-2^2", "-4", 1},
    {"\\pi", "π", 1},
    {"\\pi", "3.14", 0},
    {"\\pi", "3.141593", 1},
    {"2\\pi", "6\\pi/3", 1},
    {"e^2", "e^{2}", 1},
    {"\\log_2 8", "3", 1},
    {"\\sin 0", "0", 1},
    {"|-3|", "3", 1},
    {"5!", "120", 1},
    {"1011_2", "11", 1},
    // formulas in letters
    {"x + 1", "1 + x", 1},
    {"2(x+1)", "2x + 2", 1},
    {"(x+1)^2", "x^2+2x+1", 1},
    {"x^2", "x^3", 0},
    {"x", "y", 0},
    {"\\alpha + x_1", "x_{1}+\\alpha", 1},
    {"\\frac{x}{2}", "0.5x", 1},
    {"x = 3", "3", 1},
    {"3", "x = 3", 1},
    {"5", "2 + 3 = 5", 1},
    {"y = 2x + 3", "2x+3", 1},
    {"x^2 + y^2 = 1", "y^2 + x^2 = 1", 1},
    {"x^2 + y^2 = 1", "2x^2 + 2y^2 = 2", 1},
    {"x^2 + y^2 = 1", "1", 0},
    {"x > 2", "2 < x", 1},
    {"x \\ge 2", "x > 2", 0},
    {"x \\geq 2", "x \\ge 2", 1},
    {"x > 2", "x < 2", 0},
    {"\\pm 3", "3, -3", 1},
    {"1 \\pm \\sqrt{2}", "1+\\sqrt{2}, 1-\\sqrt{2}", 1},
    // sets, tuples, intervals, matrices
    {"\\{1, 2, 3\\}", "\\{3, 2, 1\\}", 1},
    {"\\{1, 2\\}", "\\{1, 3\\}", 0},
    {"\\{1, 2\\}", "\\{1, 2, 2\\}", 0},
    {"1, 2", "2, 1", 1},
    {"1, 2", "1 \\text{ and } 2", 1},
    {"x = 1, 2", "x = 1 \\text{ or } x = 2", 1},
    {"(1, 2)", "\\left(1, 2\\right)", 1},
    {"(1, 2)", "(2, 1)", 0},
    {"(\\frac{1}{2}, 3)", "(0.5, 3)", 1},
    {"(x, y) = (1, 2)", "(1, 2)", 1},
    {"[1, 2)", "[1, 2)", 1},
    {"[1, 2)", "[1, 2]", 0},
    {"(-\\infty, 3]", "(-\\infty, 3]", 1},
    {"(-\\infty, 3]", "(\\infty, 3]", 0},
    {"x \\in [0, 1]", "[0, 1]", 1},
    {"(-\\infty, 0) \\cup (1, \\infty)", "(1, \\infty) \\cup (-\\infty, 0)", 1},
    {"\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}",
     "\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}", 1},
    {"\\begin{pmatrix} 1 \\\\ 3 \\end{pmatrix}", "\\begin{pmatrix} 3 \\\\ 1 \\end{pmatrix}", 0},
    {"(1,100)", "(1,100)", 1},
    // words and choices
    {"C", "\\text{(C)}", 1},
    {"(B)", "B", 1},
    {"B", "C", 0},
    {"\\text{Evelyn}", "Evelyn", 1},
    {"\\text{Yes}", "\\text{yes}", 1},
    {"\\text{Tuesday}", "\\text{Monday}", 0},
    // what is no answer
    {"3", "", 0},
    {"3", "\\frac{3}", 0},
    {"3", "\\frac{3}{0}", 0},
    {"3", "((((3", 0},
    {"3", "three of them or more", 0},
};

TEST(Accuracy, AnswersAreComparedAsValues) {
  for (const Case& example : kBoxed) {
    EXPECT_EQ(accuracy(example.answer, boxed(example.given)), example.reward)
        << example.answer << " against " << example.given;
  }
}

constexpr Case kCompletions[] = {
    // a box, the last one
    {"4", "First \\boxed{3}, no: \\boxed{4}. There are 5 of them.", 1},
    {"4", "\\boxed{\\text{the number is } 4", 1},  // cut off: the last number
    {"4", "\\boxed{4} and then \\boxed{5", 1},
    {"\\frac{1}{2}", "\\[ \\boxed{ \\frac{1}{2} } \\]", 1},
    {"7", "\\fbox{7}", 1},
    {"7", "\\boxed {7}", 1},
    {"7", "The answer is 7. \\boxed{8}", 0},
    // GSM8K
    {"She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", "She has 3 + 4 = 7 eggs.\n#### 7", 1},
    {"#### 1,234", "#### 1234", 1},
    {"#### 7", "#### 8", 0},
    {"#### 7", "#### 8\n#### $7\n", 1},
    {"7", "#### 7 eggs\nWhich was 8.", 1},
    // phrases
    {"42", "The answer is 42.", 1},
    {"42", "So the final answer is: $42$, since 6 x 7.", 1},
    {"42", "**Answer:** 42", 1},
    {"42", "Answer: \\$42", 1},
    {"42", "The answer is:\n42\nbecause 6 times 7", 1},
    {"42", "The answer is therefore 42, not 43.", 1},
    {"42", "The answer is 41. Wait. The answer is 42. I am 99% sure.", 1},
    {"\\frac{3}{4}", "The answer is \\(\\frac{3}{4}\\).", 1},
    {"\\text{Evelyn}", "The answer is Evelyn.", 1},
    {"x+1", "the answer is $1 + x$ as shown", 1},
    {"3.5", "The answer is 3.5.", 1},
    // the last number
    {"12", "We get 5 + 7, which makes 12.", 1},
    {"12", "12 it is, not 13", 0},
    {"-3", "That leaves -3", 1},
    {"3", "10-7 is 10 - 3", 0},
    {"3", "that is 7-3", 1},
    {"1200", "for a total of $1,200.00!", 1},
    {"\\frac{3}{4}", "it is $\\frac{3}{4}$.", 1},
    {"0.75", "it is 3/4.", 1},
    {"25%", "a share of 25%", 1},
    {"12", "no number at all", 0},
    {"12", "", 0},
    // thoughts
    {"5", "<think>The answer is 4.</think>It is 5.", 1},
    {"5", "<think>\\boxed{5}</think>It is 4.", 0},
    {"5", "<think>\\boxed{5}</think>", 0},
    {"5", "<think>\\boxed{5}", 1},
    // answers that are solutions
    {"Adding up gives \\boxed{5}.", "\\boxed{5}", 1},
    {"The answer is $5$.", "\\boxed{5}", 1},
    {"$\\frac{1}{3}$", "My answer is \\boxed{\\frac{1}{3}}", 1},
};

TEST(Accuracy, TheFinalAnswerIsFound) {
  for (const Case& example : kCompletions) {
    EXPECT_EQ(accuracy(example.answer, example.given), example.reward)
        << example.answer << " against " << example.given;
  }
}

TEST(Accuracy, AnAnswerThatCannotBeReadGivesNoScoreAndIsCounted) {
  const auto reward = build_reward(reward_of("accuracy"), 16);
  int64_t unreadable = 0;
  for (const char* answer :
       {"", "Paris", "no answer", "to be or not to be", "\\int x dx", "$$", "?"}) {
    Completed completed;
    completed.completion = "\\boxed{1}";
    completed.columns = {{"answer", answer}};
    reward->submit(completed);
    EXPECT_TRUE(std::isnan(reward->collect().at(0))) << answer;
    EXPECT_EQ(reward->errors(), ++unreadable);
    EXPECT_NE(reward->last_error().find(answer), std::string::npos) << reward->last_error();
  }
}

TEST(Accuracy, TheColumnMayHoldNumbersAndHaveAnyName) {
  recipes::Reward recipe = reward_of("accuracy");
  recipe.answer = "solution";
  const auto reward = build_reward(recipe, 16);
  Completed completed;
  completed.completion = "\\boxed{42}";
  completed.columns = {{"solution", 42}, {"answer", 7}};
  reward->submit(completed);
  completed.columns = {{"solution", nullptr}};
  reward->submit(completed);
  const auto scores = reward->collect();
  ASSERT_EQ(scores.size(), 2u);
  EXPECT_EQ(scores[0], 1.0);
  EXPECT_TRUE(std::isnan(scores[1]));
  EXPECT_TRUE(reward->collect().empty());
}

TEST(Accuracy, AMissingColumnIsNamedWithThoseThatAreThere) {
  const auto reward = build_reward(reward_of("accuracy"), 16);
  Completed completed;
  completed.columns = {{"solution", "1"}, {"level", 2}};
  try {
    reward->submit(completed);
    FAIL();
  } catch (const UserError& error) {
    const std::string line = error.what();
    EXPECT_NE(line.find("answer"), std::string::npos) << line;
    EXPECT_NE(line.find("solution, level"), std::string::npos) << line;
  }
}

TEST(Accuracy, WhatACompletionNestsOrRepeatsWithoutEndIsNoAnswer) {
  std::string boxes, brackets, signs, fractions;
  for (int i = 0; i < 20000; ++i) {
    boxes += "\\boxed{";
    brackets += "(";
    signs += "-";
    fractions += "\\frac";
  }
  EXPECT_EQ(accuracy("5", boxes), 0.0);
  for (const std::string& text : {brackets, signs, fractions}) {
    EXPECT_EQ(accuracy("5", boxed(text + "5")), 0.0);
    EXPECT_EQ(accuracy("5", boxed(text.substr(0, 1500) + "5")), 0.0);
    EXPECT_EQ(accuracy("5", "The answer is " + text), 0.0);
  }
  std::string numbers;
  for (int i = 0; i < 20000; ++i) numbers += std::to_string(i) + " ";
  EXPECT_EQ(accuracy("19999", numbers), 1.0);
  EXPECT_EQ(accuracy("19999", numbers + std::string(5000, '.') + " "), 1.0);
  EXPECT_EQ(accuracy("5", boxed("9!!!!!!!!")), 0.0);
  EXPECT_EQ(accuracy("5", boxed("9^{9^{9^{9}}}")), 0.0);
  EXPECT_EQ(accuracy("5", std::string("The answer is \xff\xfe 5")), 1.0);
}

}  // namespace
}  // namespace temper::trainer
