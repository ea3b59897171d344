#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

#include "trainer/generation/kv_cache.h"
#include "trainer/models/decode_inputs.h"
#include "trainer/ops/device_graph.h"

namespace temper::trainer {

class Model;

/// Steps of decoding on a device, each started with one call (ops/device_graph.h): through the
/// model and its head, for 1, 2, 4, 8, 16, 24, ... rows. Rows that are too many are padding, which
/// writes to a page of its own. A number of rows is recorded once it has been decoded a few times.
///
/// A graph knows weights and pages by their addresses and adapters by what they did: none outlives
/// this object, while which neither may change.
class DecodeGraphs {
 public:
  /// Not on the CPU, not with TEMPER_CUDA_GRAPHS=0, not where weights come and go (block hooks),
  /// and with no adapter that takes the place of a product: some of those wait for the device.
  static bool apply_to(Model& model);

  /// `slots` sequences at most, of at most `longest` tokens.
  DecodeGraphs(Model& model, KvCache& cache, int64_t slots, int64_t longest);

  /// Logits [R, V] float32 of what follows: the first rows are those of `token_ids`, each the next
  /// token of a sequence of the cache. Valid until the next call.
  at::Tensor step(std::vector<int64_t> token_ids, const std::vector<int64_t>& sequences);

 private:
  struct Recorded {
    int64_t steps = 0;  // before it was
    DecodeInputs inputs;
    std::unique_ptr<DeviceGraph> graph;
  };
  void compute(const DecodeInputs& inputs, const at::Tensor& logits);

  Model& model_;
  KvCache& cache_;
  at::Device device_;
  int64_t slots_, longest_;
  at::Tensor logits_;  // of the last step
  std::map<int64_t, Recorded> of_rows_;
  DeviceGraph* first_ = nullptr;  // whose memory the others use too
};

}  // namespace temper::trainer
