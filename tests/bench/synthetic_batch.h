#pragma once

#include <ATen/ATen.h>

#include "data/loader/batch.h"

namespace temper::trainer {

/// `rows` documents of `length` random tokens, all of them supervised, on the host.
inline data::Batch synthetic_batch(int64_t rows, int64_t length, int64_t vocabulary) {
  data::Batch batch;
  batch.token_ids = at::randint(vocabulary, {rows, length}, at::kLong);
  batch.labels = at::randint(vocabulary, {rows, length}, at::kLong);
  batch.positions = at::arange(length, at::kLong).expand({rows, length}).contiguous();
  batch.document_ends = at::arange(0, (rows + 1) * length, length, at::kInt);
  batch.rows = rows;
  batch.input_tokens = batch.supervised = rows * length;
  return batch;
}

}  // namespace temper::trainer
