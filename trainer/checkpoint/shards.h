#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include <c10/core/ScalarType.h>

#include "data/io/json.h"
#include "trainer/checkpoint/safetensors.h"

namespace temper::trainer {

/// Which tensors go into which file of an export, as huggingface_hub cuts a state dict: in order, a
/// new file where the next tensor would not fit; a tensor above the limit has a file of its own.
struct ShardPlan {
  std::vector<std::pair<std::string, std::vector<size_t>>> files;  // name, indices of tensors
  int64_t total_bytes = 0;
};

/// `floating`: the type that floating-point tensors are stored in.
ShardPlan plan_shards(const NamedTensors& tensors, at::ScalarType floating,
                      int64_t max_shard_bytes);

/// model.safetensors.index.json.
data::Json shard_index(const ShardPlan& plan, const NamedTensors& tensors);

}  // namespace temper::trainer
