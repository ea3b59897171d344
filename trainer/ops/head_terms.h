#pragma once

#include <ATen/core/Tensor.h>

#include "trainer/ops/head_cross_entropy.h"
#include "trainer/ops/head_divergence.h"

namespace temper::trainer {

/// What the operators that end in an output head and give a whole loss find, on hidden's device:
/// unlike the functions of their own headers, which are these and then a copy to the host, they
/// wait for nothing that a device still does.
struct HeadTerms {
  at::Tensor sum;  // [] float32; differentiated as HeadLoss's (unchecked on a device)
  at::Tensor correct, entropy;  // [] float64
};

HeadTerms head_cross_entropy_terms(const at::Tensor& hidden, const OutputHead& head,
                                   const at::Tensor& labels, TokenLoss kind);

HeadTerms head_divergence_terms(const at::Tensor& hidden, const OutputHead& head,
                                const at::Tensor& teacher_hidden, const OutputHead& teacher_head,
                                const at::Tensor& positions, const at::Tensor& labels,
                                const DivergenceOptions& options);

}  // namespace temper::trainer
