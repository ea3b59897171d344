#pragma once

#include <string_view>

#include "trainer/rewards/math_number.h"

namespace temper::trainer {

/// The value of one formula in the spelling of latex_text.h. `sign_of_pm`: what \pm stands for
/// (\mp is the opposite). `thousands`: 1,000 is one number. Throws Unreadable.
MathNumber parse_formula(std::string_view text, int sign_of_pm, bool thousands);

}  // namespace temper::trainer
