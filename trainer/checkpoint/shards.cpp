#include "trainer/checkpoint/shards.h"

#include <cstdio>
#include <map>

#include <c10/core/ScalarType.h>

namespace temper::trainer {

ShardPlan plan_shards(const NamedTensors& tensors, at::ScalarType floating,
                      int64_t max_shard_bytes) {
  ShardPlan plan;
  std::vector<std::vector<size_t>> shards;
  std::vector<size_t> current;
  int64_t current_bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const at::Tensor& tensor = tensors[i].second;
    const at::ScalarType type =
        at::isFloatingType(tensor.scalar_type()) ? floating : tensor.scalar_type();
    const int64_t bytes = tensor.numel() * static_cast<int64_t>(c10::elementSize(type));
    plan.total_bytes += bytes;
    if (bytes > max_shard_bytes) {
      shards.push_back({i});
      continue;
    }
    if (current_bytes + bytes > max_shard_bytes) {
      shards.push_back(std::move(current));
      current.clear();
      current_bytes = 0;
    }
    current.push_back(i);
    current_bytes += bytes;
  }
  if (!current.empty()) shards.push_back(std::move(current));

  for (size_t i = 0; i < shards.size(); ++i) {
    char name[64] = "model.safetensors";
    if (shards.size() > 1) {
      std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    }
    plan.files.emplace_back(name, std::move(shards[i]));
  }
  return plan;
}

data::Json shard_index(const ShardPlan& plan, const NamedTensors& tensors) {
  std::map<std::string, std::string> file_of;  // sorted by name, as transformers writes it
  int64_t parameters = 0;
  for (const auto& [file, members] : plan.files) {
    for (const size_t member : members) {
      file_of[tensors[member].first] = file;
      parameters += tensors[member].second.numel();
    }
  }
  return {{"metadata", {{"total_parameters", parameters}, {"total_size", plan.total_bytes}}},
          {"weight_map", file_of}};
}

}  // namespace temper::trainer
