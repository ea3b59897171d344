#pragma once

#include <functional>

#include "data/text/component.h"
#include "data/text/passage.h"

/// Pre-tokenizers: how a passage is cut into the words that the model sees one by one.
namespace temper::data {

using PreTokenizer = std::function<void(Passage&)>;

/// From tokenizer.json's "pre_tokenizer"; null gives one that does nothing (and tests false).
PreTokenizer build_pre_tokenizer(const Component& component);

}  // namespace temper::data
