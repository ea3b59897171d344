#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// Zeros in memory that a device and the host share (CUDA's unified memory), as a tensor of the
/// device: where it runs out of its own, the driver moves pages that rest to the host, and back
/// when they are used. On the CPU an ordinary tensor. Throws RunError where neither has room.
at::Tensor paged_zeros(at::IntArrayRef sizes, const at::TensorOptions& options);

/// Has a paged tensor's pages brought to the device, in its current stream: a kernel that found
/// them missing would fetch them one by one.
void prefetch(const at::Tensor& paged);

}  // namespace temper::trainer
