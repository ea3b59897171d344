#pragma once

#include <cstdint>
#include <vector>

#include "data/formats/example.h"

/// What is asked of a model for a row.
namespace temper::trainer {

/// A token is supervised that something stands before.
bool has_completion(const data::Example& row);

/// All tokens before the last supervised run: of a conversation all but the last answer, of a row that
/// is supervised throughout its first token, of a prompt the whole.
std::vector<int32_t> prompt_of(const data::Example& row);

}  // namespace temper::trainer
