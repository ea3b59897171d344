#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// The directions in which rows vary most, with their mean taken out, found from one batch of rows
/// after the other (Ross et al. 2008, doi:10.1007/s11263-007-0075-7): what PEFT 0.21.2 does for EVA.
/// Each step is a randomised SVD (Halko et al. 2011, arXiv:0909.4061, algorithm 5.1) of what is known
/// so far over the new rows, drawn from the same seed each time; on one thread, so that the bits do
/// not depend on how many there are. Legend: M rows, D their width, C directions that are kept.
class IncrementalPca {
 public:
  /// C = `directions`, at most D.
  explicit IncrementalPca(int64_t directions) : directions_(directions) {}

  /// `x` [M, D] float32, M >= C.
  void add(at::Tensor x);
  bool begun() const { return components_.defined(); }

  /// Unit vectors [C, D], the one with the largest variance first; the largest element is positive.
  const at::Tensor& components() const { return components_; }
  const at::Tensor& singular_values() const { return singular_values_; }  // [C]
  /// Share of each direction in the variance of all rows, [C].
  const at::Tensor& explained() const { return explained_; }

 private:
  int64_t directions_;
  int64_t rows_ = 0;
  at::Tensor mean_, variance_;  // [D] float64, of all rows
  at::Tensor components_, singular_values_, explained_;
};

}  // namespace temper::trainer
