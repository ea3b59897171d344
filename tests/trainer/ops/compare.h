#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace temper::trainer {

/// Largest difference, relative to the largest expected value.
inline double worst(const at::Tensor& found, const at::Tensor& expected) {
  const at::Tensor reference = expected.detach().to(at::kDouble);
  const double scale = std::max(reference.abs().max().item<double>(), 1e-30);
  return (found.detach().to(at::kDouble) - reference).abs().max().item<double>() / scale;
}

/// What one rounding to the type may cost.
inline double tolerance(at::ScalarType dtype) {
  return dtype == at::kFloat ? 3e-6 : dtype == at::kHalf ? 1.25e-3 : 1e-2;
}

/// A leaf with the same values in double precision, for the slow and obvious version.
inline at::Tensor exact(const at::Tensor& tensor) {
  return tensor.detach().to(at::kDouble).requires_grad_(tensor.requires_grad());
}

inline at::Tensor leaf(const at::Tensor& values, at::ScalarType dtype) {
  return values.to(dtype).detach().requires_grad_(true);
}

}  // namespace temper::trainer
