// What a row of logits says of its label: a block a row, one pass over it.
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

// The softmax of what a thread has seen, relative to its largest logit.
struct Softmax {
  float peak = -INFINITY, total = 0, weighted = 0, sum = 0;
  int64_t argmax = 0;

  __device__ void see(float x, int64_t at) {
    sum += x;
    if (x > peak) {
      rebase(x);
      argmax = at;
    }
    const float below = x - peak;
    const float e = x == -INFINITY ? 0.0f : expf(below);
    total += e;
    weighted += e == 0 ? 0.0f : e * below;
  }
  __device__ void rebase(float to) {
    if (total > 0) {
      const float shift = peak - to, scale = expf(shift);
      weighted = scale == 0 ? 0.0f : (weighted + total * shift) * scale;
      total *= scale;
    }
    peak = to;
  }
};

template <int kWide>
__global__ void token_values_kernel(TokenRowsView v) {
  __shared__ float of_warps[kThreads / kWarp];
  const int64_t row = blockIdx.x;
  const float* logits = v.logits + row * v.vocabulary;
  Softmax own;
  for (int64_t i = threadIdx.x * kWide; i < v.vocabulary; i += kThreads * kWide) {
    const auto pack = load_pack<kWide>(logits + i);
    for (int k = 0; k < kWide; ++k) own.see(pack.at[k], i + k);
  }
  const float peak = block_max(own.peak, of_warps);
  // Of equal ones the first, as on the CPU; ids are exact in float32.
  const float first = -block_max(
      own.peak == peak && own.total > 0 ? -static_cast<float>(own.argmax) : -INFINITY, of_warps);
  own.rebase(peak);
  const float total = block_sum(own.total, of_warps);
  const float weighted = block_sum(own.weighted, of_warps);
  const float sum = block_sum(own.sum, of_warps);
  if (threadIdx.x != 0) return;
  const float log_total = logf(total), log_sum_exp = peak + log_total;
  const int64_t label = v.labels[row];
  v.log_prob[row] = logits[label] - log_sum_exp;
  v.entropy[row] = log_total - weighted / total;
  v.log_sum_exp[row] = log_sum_exp;
  v.mean[row] = sum / static_cast<float>(v.vocabulary);
  v.correct[row] = first == static_cast<float>(label) ? 1.0f : 0.0f;
}

template <class T, int kWide>
__global__ void token_gradient_kernel(TokenGradientView v) {
  const int64_t row = blockIdx.x, label = v.labels[row];
  const float* logits = v.logits + row * v.vocabulary;
  T* out = static_cast<T*>(v.out) + row * v.vocabulary;
  const float log_sum_exp = v.log_sum_exp[row], dlog_prob = v.dlog_prob[row];
  const float dentropy = v.dentropy ? v.dentropy[row] : 0.0f;
  const float entropy = v.entropy ? v.entropy[row] : 0.0f;
  for (int64_t i = threadIdx.x * kWide; i < v.vocabulary; i += kThreads * kWide) {
    const auto pack = load_pack<kWide>(logits + i);
    Pack<T, kWide> to;
    for (int k = 0; k < kWide; ++k) {
      const float log_p = pack.at[k] - log_sum_exp, p = expf(log_p);
      float d = p == 0 ? 0.0f : p * (-dlog_prob - dentropy * (log_p + entropy));
      if (i + k == label) d += dlog_prob;
      rounded_store(&to.at[k], d);
    }
    store_pack(out + i, to);
  }
}

}  // namespace

int token_values(const TokenRowsView& v, CUstream_st* stream) {
  return with_width<float>(aligned(v.logits), v.vocabulary, [&](auto width) {
    return launch(token_values_kernel<decltype(width)::value>, v.rows, stream, v);
  });
}

int token_gradient(Element type, const TokenGradientView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    return with_width<float>(aligned(v.logits) && aligned(v.out), v.vocabulary, [&](auto width) {
      return launch(token_gradient_kernel<decltype(element), decltype(width)::value>, v.rows,
                    stream, v);
    });
  });
}

}  // namespace temper::trainer::cuda
