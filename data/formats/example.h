#pragma once

#include <cstdint>
#include <vector>

namespace temper::data {

/// One tokenized row: ids, and for each id whether the loss counts it. Label of position t is
/// ids[t] where supervised[t] (the shift by one is the model's: position t predicts t + 1). The
/// first token of a document is never a target.
struct Example {
  std::vector<int32_t> ids;
  std::vector<uint8_t> supervised;  // 0 or 1, same length
};

}  // namespace temper::data
