#pragma once

#include <functional>
#include <vector>

#include "data/text/component.h"
#include "data/text/passage.h"

/// Pre-tokenizers: how a passage is cut into the words that the model sees one by one.
namespace temper::data {

struct PreTokenizer {
  std::vector<std::function<void(Passage&)>> steps;
  /// Whether the words are bytes that the model knows by the letters of byte_level.h.
  bool spells_bytes = false;

  void operator()(Passage& passage) const {
    for (const auto& step : steps) step(passage);
  }
};

/// From tokenizer.json's "pre_tokenizer"; null gives one that leaves the passage one word.
PreTokenizer build_pre_tokenizer(const Component& component);

}  // namespace temper::data
