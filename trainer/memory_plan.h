#pragma once

#include <cstdint>
#include <string>

#include "recipes/recipe.h"
#include "trainer/models/config.h"

/// What a recipe needs of each rank, as a pure function of recipe and model: the tensors are counted on the meta device.
namespace temper::trainer {

struct MemoryPlan {
  int64_t parameters = 0;  // of the base model
  int64_t trainable = 0;   // elements that have gradients
  // Bytes a rank.
  int64_t weights = 0;      // in the compute type, plus float32 masters where that differs
  int64_t gradients = 0;    // float32 buckets
  int64_t optimizer = 0;    // float32 states
  int64_t activations = 0;  // of one micro-batch of full rows, at the start of its backward pass
  int64_t rewards = 0;      // weights of reward models
  int64_t rollouts = 0;     // keys, values and the CPU's packed weights while completions are sampled; the allocator keeps them for the next time
  int64_t buffers = 0;      // the head's chunk of logits, the asynchronous checkpoint's snapshot, what exchanges copy, program and libraries
  int64_t offloaded = 0;    // in host memory where a GPU computes: of weights and optimizer (parallel.offload), the snapshot
  int64_t on_device() const { return total() - offloaded; }
  int64_t total() const { return weights + gradients + optimizer + activations + rewards + rollouts + buffers; }
  // Disk.
  int64_t checkpoint_bytes = 0;  // one checkpoint, all ranks together
  int64_t export_bytes = 0;
};

MemoryPlan plan_memory(const recipes::Recipe& recipe, const ModelConfig& config, int64_t ranks);

/// Which key makes the recipe fit into `limit` bytes a rank, or which keys together, in a line.
std::string memory_advice(const recipes::Recipe& recipe, const ModelConfig& config, int64_t ranks, int64_t limit);

/// Weights of the model, tied ones once.
int64_t parameter_count(const ModelConfig& config);

}  // namespace temper::trainer
