// From rows of logits to tokens: a block a draw, all that generation/sampling.cpp does to a row.
// Probabilities relative to the largest are added up as integers, so that sums are the same in any
// order; what is cut off is found by bisection over the bits of the numbers, which is exact and
// asks for no sorted copy.
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

// A probability relative to the largest, in [0, 1], in units of 2^-44: exact from 2^-21 on, and a
// million of them fit.
constexpr float kUnits = 17592186044416.0f;
__device__ uint64_t mass_of(float relative) { return static_cast<uint64_t>(relative * kUnits); }

struct Shared {
  float floats[kThreads / kWarp];
  uint64_t masses[kThreads / kWarp];
  uint64_t of_threads[kThreads];
  int64_t found;
};

// Elements of a row that a thread sees again and again: what it wrote itself needs no barrier.
template <class F>
__device__ void for_own(int64_t count, F&& f) {
  for (int64_t i = threadIdx.x; i < count; i += kThreads) f(i);
}

template <class F>
__device__ uint64_t sum_over(int64_t count, Shared& shared, F&& f) {
  uint64_t own = 0;
  for_own(count, [&](int64_t i) { own += f(i); });
  return block_sum(own, shared.masses);
}

// The first element at which the masses of all up to it are more than `wanted`, which is less than
// all together.
template <class F>
__device__ int64_t find_in_order(int64_t count, uint64_t wanted, Shared& shared, F&& mass) {
  const int64_t each = (count + kThreads - 1) / kThreads;
  const int64_t begin = static_cast<int64_t>(threadIdx.x) * each;
  const int64_t end = begin + each < count ? begin + each : count;
  __syncthreads();  // elements of other threads are read
  uint64_t own = 0;
  for (int64_t i = begin; i < end; ++i) own += mass(i);
  shared.of_threads[threadIdx.x] = own;
  __syncthreads();
  uint64_t before = 0;
  for (unsigned t = 0; t < threadIdx.x; ++t) before += shared.of_threads[t];
  if (before <= wanted && wanted < before + own) {
    int64_t i = begin;
    for (before += mass(i); before <= wanted; before += mass(i)) ++i;
    shared.found = i;
  }
  __syncthreads();
  const int64_t found = shared.found;
  __syncthreads();
  return found;
}

struct Softmax {
  float peak = 0, log_sum_exp = 0;
  int64_t argmax = 0;  // of equal ones the first
  bool finite = false;
};

__device__ float log_of_sum(float peak, uint64_t total) {
  return peak + logf(static_cast<float>(static_cast<double>(total) / kUnits));
}

template <class F>
__device__ Softmax softmax_of(int64_t count, Shared& shared, F&& logit) {
  float own = -INFINITY;
  int64_t at = 0;
  for_own(count, [&](int64_t i) {
    const float x = logit(i);
    if (x <= own) return;
    own = x < INFINITY ? x : INFINITY;  // a NaN is seen as well
    at = i;
  });
  Softmax softmax;
  softmax.peak = block_max(own, shared.floats);
  softmax.finite = softmax.peak > -INFINITY && softmax.peak < INFINITY;
  if (!softmax.finite) return softmax;
  // Ids are exact in float32.
  softmax.argmax = -static_cast<int64_t>(
      block_max(own == softmax.peak ? -static_cast<float>(at) : -INFINITY, shared.floats));
  const uint64_t total =
      sum_over(count, shared, [&](int64_t i) { return mass_of(expf(logit(i) - softmax.peak)); });
  softmax.log_sum_exp = log_of_sum(softmax.peak, total);
  return softmax;
}

// In the order of the numbers.
__device__ uint32_t key_of(float x) {
  const uint32_t bits = bits_of_float(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ float float_of_key(uint32_t key) {
  return float_of_bits(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// The k-th largest, k <= count.
__device__ float kth_largest(const float* x, int64_t count, int64_t k, float peak, Shared& shared) {
  uint32_t least = 0, above = key_of(peak) + 1;  // at least k reach the first, none the second
  while (above - least > 1) {
    const uint32_t middle = least + (above - least) / 2;
    const uint64_t reach =
        sum_over(count, shared, [&](int64_t i) { return uint64_t{key_of(x[i]) >= middle}; });
    (reach >= static_cast<uint64_t>(k) ? least : above) = middle;
  }
  return float_of_key(least);
}

// From the least likely up, of equal ones from the first, relative probabilities become 0 while
// they are at most `tail` of all together; the last one stays.
__device__ void cut_tail(float* e, int64_t count, float tail, Shared& shared) {
  const auto total =
      static_cast<double>(sum_over(count, shared, [&](int64_t i) { return mass_of(e[i]); }));
  const auto share = [&](uint64_t mass) { return static_cast<double>(mass) / total; };
  const auto goes = [&](double part) { return static_cast<float>(part) <= tail; };
  // All that is less than `edge` goes, and what equals it goes in part; the largest is 1.
  uint32_t edge = 0, above = bits_of_float(1.0f) + 1;
  uint64_t below = 0;
  while (above - edge > 1) {
    const uint32_t middle = edge + (above - edge) / 2;
    const uint64_t between = sum_over(count, shared, [&](int64_t i) {
      const uint32_t bits = bits_of_float(e[i]);
      return edge <= bits && bits < middle ? mass_of(e[i]) : uint64_t{0};
    });
    if (goes(share(below + between))) {
      below += between;
      edge = middle;
    } else {
      above = middle;
    }
  }
  const auto equal = [&](int64_t i) { return uint64_t{bits_of_float(e[i]) == edge}; };
  // Each is rounded as the CPU's: of equals both leave the same.
  const double each = static_cast<float>(share(mass_of(float_of_bits(edge))));
  uint64_t gone = 0, some = sum_over(count, shared, equal);  // some is too many
  while (some - gone > 1) {
    const uint64_t middle = gone + (some - gone) / 2;
    (goes(share(below) + static_cast<double>(middle) * each) ? gone : some) = middle;
  }
  const int64_t first = find_in_order(count, gone, shared, equal);
  for_own(count, [&](int64_t i) {
    const uint32_t bits = bits_of_float(e[i]);
    if (bits < edge || (bits == edge && i < first)) e[i] = 0;
  });
}

__global__ void draw_tokens_kernel(SamplingView v) {
  __shared__ Shared shared;
  const int64_t count = v.vocabulary;
  const TokenDraw draw = v.draws[blockIdx.x];
  const float* logits = v.logits + draw.row * count;
  for_own(draw.marks, [&](int64_t i) {
    const int32_t id = draw.marked[i];
    if (id < count) atomicOr(draw.seen + id / 32, 1u << (id % 32));  // else the head cannot give it
  });
  __syncthreads();
  const auto tempered = [&](int64_t i) { return logits[i] / v.temperature; };
  const auto penalised = [&](int64_t i) {
    float x = logits[i];
    if (draw.seen != nullptr && (draw.seen[i / 32] >> (i % 32) & 1u) != 0) {
      x = x < 0 ? x * v.penalty : x / v.penalty;
    }
    return x / v.temperature;
  };
  const Softmax trained = softmax_of(count, shared, tempered);
  Softmax drawn = trained;
  if (draw.seen != nullptr && trained.finite) drawn = softmax_of(count, shared, penalised);
  DrawnToken token;
  token.id = -1;
  if (trained.finite && drawn.finite && v.greedy) {
    token.id = static_cast<int32_t>(drawn.argmax);
  } else if (trained.finite && drawn.finite) {
    float* e = v.scratch + int64_t{blockIdx.x} * count;
    for_own(count, [&](int64_t i) { e[i] = penalised(i); });
    const bool top_k = v.top_k > 0 && v.top_k < count;
    const float least = top_k ? kth_largest(e, count, v.top_k, drawn.peak, shared) : -INFINITY;
    for_own(count, [&](int64_t i) { e[i] = e[i] < least ? 0.0f : expf(e[i] - drawn.peak); });
    if (v.tail > 0) cut_tail(e, count, v.tail, shared);
    for_own(count, [&](int64_t i) {
      if (e[i] < v.min_p) e[i] = 0;
    });
    const auto mass = [&](int64_t i) { return mass_of(e[i]); };
    const uint64_t total = sum_over(count, shared, mass);
    const auto wanted = static_cast<uint64_t>(draw.uniform * static_cast<double>(total));
    token.id = static_cast<int32_t>(
        find_in_order(count, wanted < total ? wanted : total - 1, shared, mass));
    token.drawn_log_prob = penalised(token.id) - log_of_sum(drawn.peak, total);
  }
  if (token.id >= 0) token.log_prob = tempered(token.id) - trained.log_sum_exp;
  if (threadIdx.x == 0) v.drawn[blockIdx.x] = token;
}

}  // namespace

int draw_tokens(const SamplingView& view, CUstream_st* stream) {
  return launch(draw_tokens_kernel, view.count, stream, view);
}

}  // namespace temper::trainer::cuda
