#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "data/loader/loader.h"
#include "data/shards/prepare.h"
#include "recipes/diagnostic.h"
#include "tests/data/temporary_directory.h"

/// Rows whose every token tells what it is, so that batches tell where each of their tokens came
/// from and whether it is rightly trained on.
namespace temper::data {

/// A row {"first": n, "tokens": k} has the tokens n, n + 1, ..., n + k - 1 (above 0); two of three
/// are supervised. {"first": 0} is a bad row.
inline bool is_supervised(int64_t id) { return id % 3 != 0; }

inline std::string row_text(int64_t first, int64_t tokens) {
  return "{\"first\": " + std::to_string(first) + ", \"tokens\": " + std::to_string(tokens) + "}\n";
}

inline EncoderFactory made_rows() {
  return [](const recipes::DataSource&, const Row&) {
    const auto encode = [](const Row& row) {
      const auto number = [&](const char* column) {
        const Json& value = row.columns.at(column);
        return value.is_string() ? std::stoll(value.get<std::string>()) : value.get<int64_t>();
      };
      const int64_t first = number("first"), tokens = number("tokens");
      if (first == 0) throw UserError(row.where() + ": begins with 0");
      TokenizedRow tokenized{.documents = {{}}, .columns = {}};
      for (int64_t id = first; id < first + tokens; ++id) {
        tokenized.documents[0].ids.push_back(static_cast<int32_t>(id));
        tokenized.documents[0].supervised.push_back(is_supervised(id));
      }
      return tokenized;
    };
    return SourceEncoder{.encode = encode,
                         .fingerprint = "made",
                         .format = "made",
                         .rules = {.needs_targets = false},
                         .statement = ""};
  };
}

/// The tokens of a batch in order, padding left out. Fails where a label is not what the token
/// behind it says, or where a document is not a run of one row.
inline std::vector<int64_t> checked_tokens(const Batch& batch) {
  std::vector<int64_t> tokens;
  const int64_t* ids = batch.token_ids.const_data_ptr<int64_t>();
  const int64_t* labels = batch.labels.const_data_ptr<int64_t>();
  const int32_t* ends = batch.document_ends.const_data_ptr<int32_t>();
  for (int64_t d = 0; d + 1 < batch.document_ends.numel(); ++d) {
    if (ids[ends[d]] == 0) {  // padding
      for (int32_t t = ends[d]; t < ends[d + 1]; ++t) EXPECT_EQ(labels[t], -100);
      continue;
    }
    for (int32_t t = ends[d]; t < ends[d + 1]; ++t) {
      tokens.push_back(ids[t]);
      const bool last = t + 1 == ends[d + 1];
      EXPECT_TRUE(last || ids[t + 1] == ids[t] + 1);
      const bool counts = !last && is_supervised(ids[t + 1]);
      EXPECT_EQ(labels[t], counts ? ids[t + 1] : -100);
    }
  }
  return tokens;
}

inline std::vector<int64_t> checked_tokens(const StepBatches& step) {
  std::vector<int64_t> tokens;
  for (const Batch& batch : step.micro_batches) {
    const std::vector<int64_t> part = checked_tokens(batch);
    tokens.insert(tokens.end(), part.begin(), part.end());
  }
  return tokens;
}

}  // namespace temper::data
