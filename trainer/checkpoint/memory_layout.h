#pragma once

#include <cstdint>
#include <utility>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// Tensors one after the other in one piece of memory, each at a multiple of 64 bytes. Without
/// memory it only counts.
class MemoryLayout {
 public:
  /// `memory`: [bytes] uint8.
  explicit MemoryLayout(at::Tensor memory = {}) : memory_(std::move(memory)) {}

  at::Tensor next(at::IntArrayRef sizes, at::ScalarType type) {
    const int64_t begin = bytes_;
    const int64_t bytes =
        c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(type));
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (!memory_.defined()) return {};
    return memory_.narrow(0, begin, bytes).view(type).view(sizes);
  }
  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int64_t kAlignment = 64;
  at::Tensor memory_;
  int64_t bytes_ = 0;
};

}  // namespace temper::trainer
