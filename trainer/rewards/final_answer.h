#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "trainer/rewards/math_value.h"

/// Where in a text its final answer is.
namespace temper::trainer {

/// The readings of a completion's answer: of the last complete \boxed{}; else of what follows the
/// last "####"; else of what follows the last "answer is" or "answer:"; else the last number. After
/// the last </think> where there is one. None: there is no answer.
std::vector<MathValue> answer_of_completion(std::string_view completion);

/// The readings of a row's answer: a value, or a solution whose answer is in \boxed{}, behind
/// "####" (GSM8K), in its only formula between $ or behind "answer is". None: not an answer.
std::vector<MathValue> answer_of_row(std::string_view answer);

}  // namespace temper::trainer
