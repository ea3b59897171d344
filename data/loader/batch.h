#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace temper::data {

/// A micro-batch of B rows of T tokens, several documents packed in a row; documents never attend
/// to each other. T is the longest row of this micro-batch: with packing rows are nearly full;
/// without it shorter rows are padded at the end, and padding is a document of its own without
/// labels.
struct Batch {
  at::Tensor token_ids;  // [B, T] int64
  at::Tensor labels;     // [B, T] int64, already shifted: labels[b, t] is the target predicted AT
                         // position t; -100: not counted
  at::Tensor positions;  // [B, T] int64, restart at 0 with each document
  at::Tensor document_ends;  // [S + 1] int32: boundaries of the documents in the flattened [B * T],
                             // first 0, last B * T
  int64_t rows = 0;          // sequences counted by batch.micro (B)
  int64_t input_tokens = 0;  // without padding
  int64_t supervised = 0;    // labels that are not -100
};

}  // namespace temper::data
