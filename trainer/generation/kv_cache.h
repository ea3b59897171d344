#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// Keys and values of the tokens seen so far: per layer [B, K, capacity, E] in the compute type,
/// rope already applied.
class KvCache {
 public:
  KvCache(int64_t layers, int64_t batch, int64_t kv_heads, int64_t head_dim, int64_t capacity,
          at::ScalarType dtype);
  int64_t length() const { return length_; }
  int64_t capacity() const { return capacity_; }
  /// Appends keys and values [B, K, T, E] of `layer`; returns views of all of that layer's, [B, K,
  /// length + T, E].
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& keys,
                                           const at::Tensor& values);
  /// Called once a forward pass has appended to every layer.
  void advance(int64_t tokens) { length_ += tokens; }

 private:
  std::vector<at::Tensor> keys_, values_;
  int64_t capacity_;
  int64_t length_ = 0;
};

}  // namespace temper::trainer
