#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace temper::data {

/// One tokenized row: ids, and for each id whether the loss counts it. Label of position t is
/// ids[t] where supervised[t] (the shift by one is the model's: position t predicts t + 1). The
/// first token of a document is never a target.
struct Example {
  std::vector<int32_t> ids;
  std::vector<uint8_t> supervised;  // 0 or 1, same length
};

/// One tokenized row: the documents that are compared with each other, and what else is known of
/// it. Of most formats a row is one document; a preference is two (chosen, rejected), the
/// completions of one prompt are as many as were sampled.
struct TokenizedRow {
  std::vector<Example> documents;
  std::string
      columns;  // a JSON object with what losses and rewards need (label, margin, answer); or ""
  int64_t cut = 0;  // tokens left out already: of whole texts (Format::whole_texts)
};

}  // namespace temper::data
