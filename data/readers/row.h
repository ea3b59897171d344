#pragma once

#include <cstdint>
#include <string>

#include "data/io/json.h"

namespace temper::data {

/// One record of a data file: its columns by name, and where it stands, for messages.
struct Row {
  Json columns;        // an object
  std::string file;    // as the user wrote it
  int64_t number = 0;  // counted from 1: line of a JSONL, CSV or text file (where the row starts),
                       // record of the others
  /// "train.jsonl:17"
  std::string where() const { return file + ":" + std::to_string(number); }
};

}  // namespace temper::data
