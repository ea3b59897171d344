#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "data/formats/example.h"

namespace temper::data {

/// What losses over whole completions count, grouped by completion. Completions are the documents of
/// the batch's rows in order: row 0's first, row 0's second, ..., C in all; n targets.
struct Targets {
  at::Tensor positions;   // [n] int64: which of the flattened [B * T] hidden states predicts the target
  at::Tensor labels;      // [n] int64
  at::Tensor ends;        // [C + 1] int64: completion c has targets [ends[c], ends[c + 1])
  at::Tensor last_tokens;  // [C] int64: position of each completion's last token, in [B * T]
};

/// What is known of sampled completions besides their tokens, for losses that learn from rewards
/// (trainer/rollouts.h): C completions, n targets, float32.
struct Rollout {
  at::Tensor rewards;             // [C] NaN: not scored
  at::Tensor advantages;          // [C]
  at::Tensor old_log_probs;       // [n] of the policy as it was when it sampled; undefined: as it is
  at::Tensor sampling_log_probs;  // [n] under what the sampler drew from
  // [n] where a value head gives each token an advantage of its own; else undefined.
  at::Tensor old_values, token_advantages, returns;
  double mean_tokens = 1;         // targets of the mean completion of the whole generation batch
  double temperature = 1;         // that logits are divided by
  double entropy_coef = 0;        // of the entropy bonus of this step
};

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
  int64_t number = 0;        // of this micro-batch in its step, over all ranks
  int64_t rows = 0;          // sequences counted by batch.micro (B)
  int64_t input_tokens = 0;  // without padding; a shared prompt counts for each document
  int64_t supervised = 0;    // labels, or targets
  /// [S] int32, or undefined when no document has one: the document (by its index) that stands in
  /// front of this one, as a prompt in front of each of its completions; -1: none. A prefix has none
  /// itself. Positions of a document with a prefix go on from the prefix's.
  at::Tensor prefixes;
  /// Of a batch of collate_rows(); else undefined and empty.
  Targets targets;
  std::vector<TokenizedRow> tokenized;  // the rows
  std::vector<int64_t> row_numbers;     // of the data set; empty for rows that come from nowhere
  at::Tensor reference_log_probs;       // [n] float32 of the targets, once an objective has asked for them
  Rollout rollout;                      // of sampled completions; else undefined
  double baseline = 0;                  // what the loss compares with, where an objective has found one (KTO's KL)
};

}  // namespace temper::data
