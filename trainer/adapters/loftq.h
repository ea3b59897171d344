#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

/// LoftQ (Li et al. 2023, arXiv:2310.08659), as PEFT 0.21.2 does it: T times
///     Q = dequantise(quantise(W - B A)),    B A = the best approximation of W - Q of rank R
/// beginning with B A = 0, where B = U sqrt(S), A = sqrt(S) V^T of the SVD. The layer's base becomes
/// Q; the adapter's scale is not made up for. 4 bits: NF4 in blocks of 64 without double
/// quantisation; 8 bits: LLM.int8's. Legend: D input features, N output features, R rank.
namespace temper::trainer {

struct LoftqStart {
  at::Tensor a, b;  // [R, D], [N, R]: the adapter
  // B A that was taken out of W before it was quantised for the last time; zeros where T = 1. With
  // them Q is made again bit for bit, which decompositions are not on every machine.
  at::Tensor taken_a, taken_b;
};

/// `weight` W [N, D] float32; `bits` 4 or 8. Throws UserError naming `name` as quantize() does.
LoftqStart loftq_start(const at::Tensor& weight, int64_t rank, int64_t bits, int64_t iterations,
                       const std::string& name);

/// Q [N, D] float32 of W - taken_b taken_a.
at::Tensor loftq_base(const at::Tensor& weight, const at::Tensor& taken_a,
                      const at::Tensor& taken_b, int64_t bits, const std::string& name);

}  // namespace temper::trainer
