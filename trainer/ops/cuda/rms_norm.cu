#include "trainer/ops/cuda/norm.h"

namespace temper::trainer::cuda {

int64_t norm_partials(int64_t vectors, int64_t dim) {
  const int64_t blocks = blocks_for(vectors, dim), most = dim <= kOfAWarp ? 2 * kBlocks : kBlocks;
  return blocks < most ? blocks : most;
}

int rms_norm(Element type, const NormView& v, CUstream_st* stream) {
  return norm<false>(type, v, stream);
}

int rms_norm_backward(Element type, const NormBackwardView& v, CUstream_st* stream) {
  return norm_backward<false>(type, v, stream);
}

}  // namespace temper::trainer::cuda
