#pragma once

#include <functional>

#include "data/text/component.h"
#include "data/text/passage.h"

/// Normalizers: what happens to the text between added tokens before it is cut into words.
namespace temper::data {

using Normalizer = std::function<void(Passage&)>;

/// From tokenizer.json's "normalizer"; null gives one that does nothing (and tests false).
Normalizer build_normalizer(const Component& component);

/// Canonical composition as the package does it, alignment included (see unicode_tables.h for its
/// Unicode version).
void apply_nfc(Passage& passage);

}  // namespace temper::data
