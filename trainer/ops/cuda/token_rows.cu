// What a row of logits says of its label, a block a row and one pass over it; and the gradient of
// that, several blocks a row. Rows that begin at 16 bytes are read in packs, whatever their end.
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

constexpr int64_t kParts = 8;  // of a row, at most, that blocks share out in the gradient

// The softmax of what a thread has seen, relative to its largest logit.
struct Softmax {
  float peak = -INFINITY, total = 0, weighted = 0, sum = 0;
  int64_t argmax = 0;

  // Logits of a row up to `end`, a thread's packs from `i` on, as long as there are kPacks of them:
  // all are on their way before the first is used, and the peak moves once for all. Returns the
  // place of the first that was left.
  template <int kWide, int kPacks>
  __device__ int64_t see(const float* logits, int64_t i, int64_t end) {
    constexpr int64_t kStep = kThreads * kWide;
    for (; i + (kPacks - 1) * kStep + kWide <= end; i += kPacks * kStep) {
      Pack<float, kWide> packs[kPacks];
      for (int j = 0; j < kPacks; ++j) packs[j] = load_pack<kWide>(logits + i + j * kStep);
      float largest = -INFINITY;
      for (const auto& pack : packs)
        for (const float x : pack.at) largest = fmaxf(largest, x);
      if (largest > peak) {
        rebase(largest);
        for (int j = kPacks - 1; j >= 0; --j)
          for (int k = kWide - 1; k >= 0; --k)
            if (packs[j].at[k] == largest) argmax = i + j * kStep + k;
      }
      for (const auto& pack : packs)
        for (const float x : pack.at) add(x);
    }
    return i;
  }
  __device__ void add(float x) {
    sum += x;
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
  const float* logits = v.logits + row * v.stride;
  Softmax own;
  const int64_t left = own.see<kWide, 4>(logits, threadIdx.x * kWide, v.vocabulary);
  own.see<kWide, 1>(logits, left, v.vocabulary);
  own.see<1, 1>(logits, v.vocabulary / kWide * kWide + threadIdx.x, v.vocabulary);
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

// A block computes `part` elements of a row, a multiple of kWide.
template <class T, int kWide>
__global__ void token_gradient_kernel(TokenGradientView v, int64_t part) {
  const int64_t parts = (v.vocabulary + part - 1) / part, row = blockIdx.x / parts;
  const int64_t begin = blockIdx.x % parts * part;
  const int64_t end = begin + part < v.vocabulary ? begin + part : v.vocabulary;
  const float* logits = v.logits + row * v.stride;
  T* out = static_cast<T*>(v.out) + row * v.stride_out;
  const int64_t label = v.labels[row];
  const float log_sum_exp = v.log_sum_exp[row], dlog_prob = v.dlog_prob[row];
  const float dentropy = v.dentropy ? v.dentropy[row] : 0.0f;
  const float entropy = v.entropy ? v.entropy[row] : 0.0f;
  const auto store = [&](float x, int64_t i, T* to) {
    const float log_p = x - log_sum_exp, p = expf(log_p);
    float d = p == 0 ? 0.0f : p * (-dlog_prob - dentropy * (log_p + entropy));
    if (i == label) d += dlog_prob;
    rounded_store(to, d);
  };
  for (int64_t i = begin + threadIdx.x * kWide; i + kWide <= end; i += kThreads * kWide) {
    const auto pack = load_pack<kWide>(logits + i);
    Pack<T, kWide> to;
    for (int k = 0; k < kWide; ++k) store(pack.at[k], i + k, &to.at[k]);
    store_pack(out + i, to);
  }
  for (int64_t i = end / kWide * kWide + threadIdx.x; i < end; i += kThreads) {
    store(logits[i], i, out + i);
  }
}

}  // namespace

int token_values(const TokenRowsView& v, CUstream_st* stream) {
  return with_width<float>(aligned(v.logits), v.stride, [&](auto width) {
    return launch(token_values_kernel<decltype(width)::value>, v.rows, stream, v);
  });
}

int token_gradient(Element type, const TokenGradientView& v, CUstream_st* stream) {
  const bool all_aligned = aligned(v.logits) && aligned(v.out) && v.stride_out % kFullPack<float> == 0;
  return with_element(type, [&](auto element) {
    return with_width<float>(all_aligned, v.stride, [&](auto width) {
      constexpr int64_t kOnce = kThreads * decltype(width)::value;
      const int64_t part = ((v.vocabulary + kParts - 1) / kParts + kOnce - 1) / kOnce * kOnce;
      return launch(token_gradient_kernel<decltype(element), decltype(width)::value>,
                    v.rows * ((v.vocabulary + part - 1) / part), stream, v, part);
    });
  });
}

}  // namespace temper::trainer::cuda
