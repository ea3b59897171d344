#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "data/text/component.h"
#include "data/text/encoding.h"

/// How encodings of a batch are filled to one length.
namespace temper::data {

struct Padding {
  std::optional<int64_t> length;  // tokens; unset: those of the longest encoding
  int64_t multiple_of = 0;        // the length is rounded up to one; 0: as it is
  bool on_left = false;
  int32_t id = 0;
  int32_t type_id = 0;
  std::string token;
};

/// tokenizer.json's "padding"; unset where that is null.
std::optional<Padding> parse_padding(const Component& component);

/// Fills the encodings and their windows. Longer ones stay as they are.
void pad(std::span<Encoding> encodings, const Padding& padding);

}  // namespace temper::data
