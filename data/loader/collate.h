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

struct RowLayout {
  bool share_prefixes = true;   // what a row's documents have in common is there once
  bool prompts_too = false;     // all tokens but a document's first are targets, not the supervised ones
};

/// Rows whose documents are compared with each other, to one Batch [1, N] without padding and
/// without labels: `targets` are the documents' supervised tokens. The tokens that a row's documents
/// begin with alike, up to the last one before the first supervised token of any of them, become one
/// document that the others have as their prefix: they are computed once.
Batch collate_rows(std::vector<TokenizedRow> rows, const RowLayout& layout);

}  // namespace temper::data
