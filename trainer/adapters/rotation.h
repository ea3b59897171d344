#pragma once

#include <cstdint>
#include <string>

#include <ATen/core/Tensor.h>

/// Rotations in blocks, what OFT and BOFT are made of. Legend: K blocks of S x S.
namespace temper::trainer {

/// (I - Q) (I + Q)^-1 of skew-symmetric Q [K, S, S], float32: orthogonal.
at::Tensor cayley(const at::Tensor& skew);

/// x [M, K S] with features k S .. (k + 1) S multiplied by blocks[k] from the right. One block
/// [1, S, S]: the same for all features.
at::Tensor rotate_blocks(const at::Tensor& x, const at::Tensor& blocks);

/// "1, 2, 3, 4, 6, 12" for 12; for many divisors those about `wanted`.
std::string divisors_near(int64_t size, int64_t wanted);

}  // namespace temper::trainer
