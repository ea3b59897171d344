#pragma once

#include <span>
#include <vector>

#include "data/formats/example.h"
#include "data/loader/batch.h"

namespace temper::data {

/// The documents of one row of a batch, in order.
using Documents = std::vector<Example>;

/// Rows of documents to one Batch: T is the longest row; shorter rows are padded at their end with
/// id 0. Position t of a document predicts its token t + 1 where that one is supervised, so a
/// document's last position never counts.
Batch collate(std::span<const Documents> rows);

}  // namespace temper::data
