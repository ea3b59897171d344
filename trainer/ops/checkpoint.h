#pragma once

#include <functional>

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// f(x) with nothing kept of it but x: backward runs f again (Chen et al. 2016, arXiv:1604.06174)
/// and then its backward; parameters that f uses get their gradients there. f must give the same
/// bits each time and have no effects besides; gradients then equal those without.
at::Tensor checkpoint(const std::function<at::Tensor(const at::Tensor&)>& f, const at::Tensor& x);

}  // namespace temper::trainer
