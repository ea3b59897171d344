#include "trainer/generation/kv_cache.h"

#include <ATen/ATen.h>

#include "recipes/diagnostic.h"

namespace temper::trainer {

KvCache::KvCache(int64_t layers, int64_t batch, int64_t kv_heads, int64_t head_dim,
                 int64_t capacity, at::ScalarType dtype)
    : capacity_(capacity) {
  const auto options = at::TensorOptions().dtype(dtype);
  for (int64_t layer = 0; layer < layers; ++layer) {
    // Not filled: pages that no token reaches are never touched.
    keys_.push_back(at::empty({batch, kv_heads, capacity, head_dim}, options));
    values_.push_back(at::empty({batch, kv_heads, capacity, head_dim}, options));
  }
}

std::pair<at::Tensor, at::Tensor> KvCache::append(int64_t layer, const at::Tensor& keys,
                                                  const at::Tensor& values) {
  const int64_t tokens = keys.size(2);
  TEMPER_CHECK(length_ + tokens <= capacity_,
               "the cache holds " + std::to_string(capacity_) + " tokens");
  const auto extend = [&](at::Tensor& cached, const at::Tensor& fresh) {
    cached.narrow(2, length_, tokens).copy_(fresh);
    return cached.narrow(2, 0, length_ + tokens);
  };
  const auto index = static_cast<size_t>(layer);
  return {extend(keys_[index], keys), extend(values_[index], values)};
}

}  // namespace temper::trainer
