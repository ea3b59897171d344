#pragma once

#include <functional>
#include <string>
#include <vector>

#include "data/text/component.h"

/// Decoders: from the spellings of tokens back to text, which is what the last step leaves, joined.
namespace temper::data {

using Decoder = std::function<void(std::vector<std::string>&)>;

/// From tokenizer.json's "decoder"; null gives one that does nothing (and tests false).
Decoder build_decoder(const Component& component);

}  // namespace temper::data
