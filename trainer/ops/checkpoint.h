#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// f(x, also) with nothing kept of it but x and `also`, which may be undefined: backward runs f again
/// (Chen et al. 2016, arXiv:1604.06174) and then its backward; parameters that f uses get their
/// gradients there, but what was computed outside of f must come in as one of the two. f must give
/// the same bits each time and have no effects besides; gradients then equal those without.
using Checkpointed = std::function<at::Tensor(const at::Tensor& x, const at::Tensor& also)>;
at::Tensor checkpoint(const Checkpointed& f, const at::Tensor& x, const at::Tensor& also = {});

}  // namespace temper::trainer
