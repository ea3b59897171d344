#pragma once

#include <ATen/core/Tensor.h>

namespace temper::trainer {

/// The float32 gradient of a leaf parameter, whatever the parameter's type: the view of a reducer's
/// bucket that was set as its
/// `.grad`, or, where there is none yet, zeros that this call sets. Operators add weight gradients
/// into it themselves and return an undefined gradient to autograd, so that nothing is rounded to
/// bfloat16 or copied on the way. (The post hooks of the parameter's AccumulateGrad node still
/// run.)
at::Tensor float32_gradient(const at::Tensor& parameter);

/// What the sum of a loss is differentiated with, a factor of all gradients: one, unless one of
/// these lives on this thread (a loss scale, without which small gradients would be zero in
/// float16). For operators that compute gradients on the way forward (head_cross_entropy.h).
class LossGradient {
 public:
  explicit LossGradient(float value);
  ~LossGradient();
  LossGradient(const LossGradient&) = delete;
  LossGradient& operator=(const LossGradient&) = delete;

  static float value();

 private:
  float before_;
};

/// The sum over the rows of `partial` [n, D] float32, in order, added to `gradient` [D].
void add_partial_sums(const at::Tensor& partial, const at::Tensor& gradient);

}  // namespace temper::trainer
