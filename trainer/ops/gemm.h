#pragma once

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

/// Matrix products on one device, all threads; sums over k are float32.
namespace temper::trainer {

/// c = a b, or c += a b. a [M, K] and b [K, N] are float32, bfloat16 or float16, both the same, in
/// row- or column-major order (a transposed view is free); c [M, N] has contiguous rows and the
/// inputs' type or float32 (accumulate: float32). `add` [M, N], of c's type, is added in the same pass, and
/// so is a second product a2 b2 of [M, L] and [L, N], of a's type, before anything is rounded: the
/// low-rank part of a weight, say (on a device c is rounded after each product). A row of c does not depend on how many other rows there are.
/// `weight`: b is one, whose values do not change while KeptWeights live.
struct GemmOptions {
  bool accumulate = false;
  at::Tensor add = {};
  at::Tensor a2 = {};
  at::Tensor b2 = {};
  bool weight = false;
};
void gemm(at::Tensor c, const at::Tensor& a, const at::Tensor& b, const GemmOptions& options = {});

/// While one of these lives, a weight that few rows are multiplied with (decoding) is packed the
/// first time only, as long as all packed ones take no more than `limit` bytes: bits do not depend
/// on it. For products of this thread; while one lives, a second does nothing.
class KeptWeights {
 public:
  explicit KeptWeights(int64_t limit);
  ~KeptWeights();
  KeptWeights(const KeptWeights&) = delete;
  KeptWeights& operator=(const KeptWeights&) = delete;

  struct State;

 private:
  std::unique_ptr<State> state_;
};

/// One small product inside a parallel region: c [m, n] (+)= a [m, k] b [k, n], row-major float32.
void block_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                int64_t ldb, float* c, int64_t ldc, bool add);

}  // namespace temper::trainer
