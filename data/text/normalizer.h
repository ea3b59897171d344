#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "data/text/component.h"
#include "data/text/passage.h"

/// Normalizers: what happens to the text between added tokens before it is cut into words.
namespace temper::data {

using Normalizer = std::function<void(Passage&)>;

/// From tokenizer.json's "normalizer"; null gives one that does nothing (and tests false).
Normalizer build_normalizer(const Component& component);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };
/// Unicode's normal forms as the package makes them, alignment included (see unicode_tables.h for
/// its Unicode version).
void apply_normal_form(NormalForm form, Passage& passage);
/// The full canonical decomposition of one character, which may be that itself; the ones after
/// the last are 0.
using CanonicalParts = std::array<uint32_t, 4>;
CanonicalParts canonical_parts(uint32_t character);

/// SentencePiece's compiled rules ("precompiled_charsmap", base64). Throws UserError for damaged
/// ones.
Normalizer build_precompiled(const Component& component);

/// Normalizers that look at one character at a time.
Normalizer build_bert(const Component& component);
Normalizer build_lowercase(const Component& component);
Normalizer build_strip_accents(const Component& component);
Normalizer build_nmt(const Component& component);

}  // namespace temper::data
