#pragma once

namespace at {
class Tensor;
}

namespace temper::trainer {

/// GELU (Hendrycks and Gimpel 2016, arXiv:1606.08415):  x Phi(x), Phi the normal distribution's,
/// or what is near it:  x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
enum class Gelu { kErf, kTanh };

/// Of every element of x, in float32, one rounding.
at::Tensor gelu(const at::Tensor& x, Gelu form);

/// The same outside autograd: what a saved x gives again.
at::Tensor gelu_again(const at::Tensor& x, Gelu form);

}  // namespace temper::trainer
