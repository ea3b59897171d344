#include "trainer/ops/cuda/norm.h"

namespace temper::trainer::cuda {

int layer_norm(Element type, const NormView& v, CUstream_st* stream) {
  return norm<true>(type, v, stream);
}

int layer_norm_backward(Element type, const NormBackwardView& v, CUstream_st* stream) {
  return norm_backward<true>(type, v, stream);
}

}  // namespace temper::trainer::cuda
