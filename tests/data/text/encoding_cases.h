#pragma once

#include <filesystem>

#include "data/text/tokenizer.h"

namespace temper::data {

/// Compares the tokenizer with a file of the reference's answers, a line a case: of a "single"
/// text, a "pair", a text or pair that is cut ("trunc") and texts that are filled ("pad"). Offsets
/// there are code points. Stops at the first difference; returns the number of cases compared.
int expect_equal_cases(const Tokenizer& tokenizer, const std::filesystem::path& cases);

}  // namespace temper::data
