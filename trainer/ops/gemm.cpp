#include "trainer/ops/gemm.h"

#include <ATen/ATen.h>
#include <ATen/native/CPUBlas.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/cpu/kernels.h"

namespace temper::trainer {
namespace {

// oneDNN's micro-kernels are there on x86-64 with a LibTorch that has them; asking is trying.
bool has_brgemm() {
  static const bool found = [] {
    const float one[16] = {};
    float result[16];
    try {
      at::native::cpublas::brgemm(1, 16, 1, 1, 16, 16, false, one, one, result, false);
    } catch (const c10::Error&) {
      return false;
    }
    return true;
  }();
  return found;
}

}  // namespace

void gemm(at::Tensor c, const at::Tensor& a, const at::Tensor& b, const GemmOptions& options) {
  if (c.scalar_type() == a.scalar_type()) {
    if (options.accumulate) {
      c.addmm_(a, b);
    } else {
      at::mm_out(c, a, b);
    }
  } else if (options.accumulate) {
    c.add_(at::mm(a, b));
  } else {
    c.copy_(at::mm(a, b));
  }
  if (options.add.defined()) c.add_(options.add);
}

void block_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb, float* c,
                int64_t ldc, bool add) {
  if (has_brgemm()) {
    at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, a, b, c, false);
  } else {
    cpu::kernels().gemm(m, n, k, a, lda, b, ldb, c, ldc, add);
  }
}

}  // namespace temper::trainer
