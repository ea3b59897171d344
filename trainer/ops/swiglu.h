#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// SwiGLU (Shazeer 2020, arXiv:2002.05202):  silu(gate) * up, with gate_up [..., 2 F] holding gate
/// and up side by side. Returns [..., F].
at::Tensor swiglu(const at::Tensor& gate_up);

/// The same outside autograd: what a saved gate_up gives again.
at::Tensor swiglu_again(const at::Tensor& gate_up);

}  // namespace temper::trainer
