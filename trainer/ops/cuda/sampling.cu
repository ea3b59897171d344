// From rows of logits to tokens: a block a draw, all that generation/sampling.cpp does to a row.
// Probabilities relative to the largest are added up as integers, so that sums are the same in any
// order; what is cut off is found by thresholds over the bits of the numbers, which is exact and
// asks for no sorted copy.
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

constexpr int kRowThreads = 512;  // a block: rows are long and few
constexpr int kRowWarps = kRowThreads / kWarp;
constexpr int kAhead = 4;       // packs that a thread has asked for before it looks at the first
constexpr int kThresholds = 8;  // of a pass, which gives three bits

// A probability relative to the largest, in [0, 1], in units of 2^-44: exact from 2^-21 on, and a
// million of them fit.
constexpr float kUnits = 17592186044416.0f;
__device__ uint64_t mass_of(float relative) { return static_cast<uint64_t>(relative * kUnits); }

struct Shared {
  float floats[kRowWarps];
  uint64_t masses[kRowWarps];
  uint64_t of_warps[kThresholds][kRowWarps];
};

// f(i, pack of x[i], ...) for the packs from begin to end that `thread` of `threads` sees.
template <int kWide, class F>
__device__ void for_packs(const float* x, int begin, int end, int thread, int threads, F&& f) {
  const int step = threads * kWide;
  for (int first = begin + thread * kWide; first < end; first += kAhead * step) {
    Pack<float, kWide> packs[kAhead] = {};
    for (int j = 0; j < kAhead; ++j)
      if (first + j * step < end) packs[j] = load_pack<kWide>(x + first + j * step);
    for (int j = 0; j < kAhead; ++j)
      if (first + j * step < end) f(first + j * step, packs[j]);
  }
}

// A block's row: a thread sees the same elements again and again, and what it wrote itself needs no
// barrier.
template <int kWide>
struct Row {
  const float* x;
  int count;

  // f(i, x[i]), in order.
  template <class F>
  __device__ void for_own(F&& f) const {
    for_packs<kWide>(x, 0, count, static_cast<int>(threadIdx.x), kRowThreads,
                     [&](int i, const auto& pack) {
                       for (int k = 0; k < kWide; ++k) f(i + k, pack.at[k]);
                     });
  }

  // to[i] = f(i, x[i]); `to` may be x.
  template <class F>
  __device__ void write(float* to, F&& f) const {
    for_packs<kWide>(x, 0, count, static_cast<int>(threadIdx.x), kRowThreads,
                     [&](int i, auto pack) {
                       for (int k = 0; k < kWide; ++k) pack.at[k] = f(i + k, pack.at[k]);
                       store_pack(to + i, pack);
                     });
  }
};

template <int kWide, class F>
__device__ uint64_t sum_over(const Row<kWide>& row, Shared& shared, F&& f) {
  uint64_t own = 0;
  row.for_own([&](int i, float x) { own += f(i, x); });
  return block_sum<kRowThreads>(own, shared.masses);
}

// The first element at which the masses of all up to it are more than `wanted`, which is less than
// all together: each warp sums a part of what is left, and one part is left then.
template <int kWide, class F>
__device__ int find_in_order(const Row<kWide>& row, uint64_t wanted, Shared& shared, F&& mass) {
  const auto warp = static_cast<int>(threadIdx.x) / kWarp;
  uint64_t before = 0;
  int begin = 0, end = row.count;
  __syncthreads();  // elements of other threads are read
  while (end - begin > kWide) {
    const int each = (end - begin + kRowWarps * kWide - 1) / (kRowWarps * kWide) * kWide;
    const int first = begin + warp * each;
    uint64_t own = 0;
    for_packs<kWide>(row.x, first, first + each < end ? first + each : end, lane(), kWarp,
                     [&](int i, const auto& pack) {
                       for (int k = 0; k < kWide; ++k) own += mass(i + k, pack.at[k]);
                     });
    own = warp_sum(own);
    if (lane() == 0) shared.masses[warp] = own;
    __syncthreads();
    for (int part = 0; before + shared.masses[part] <= wanted; ++part) {
      before += shared.masses[part];
      begin += each;
    }
    if (begin + each < end) end = begin + each;
    __syncthreads();
  }
  while ((before += mass(begin, row.x[begin])) <= wanted) ++begin;
  return begin;
}

struct Softmax {
  float peak = 0;
  int argmax = 0;  // of equal ones the first
  bool finite = false;
  uint64_t total = 0;  // of masses
};

__device__ float log_of_sum(float peak, uint64_t total) {
  return peak + logf(static_cast<float>(static_cast<double>(total) / kUnits));
}

template <int kWide, class F>
__device__ Softmax softmax_of(const Row<kWide>& row, Shared& shared, F&& logit) {
  float own = -INFINITY;
  int at = 0;
  row.for_own([&](int i, float x) {
    x = logit(i, x);
    if (x <= own) return;
    own = x < INFINITY ? x : INFINITY;  // a NaN is seen as well
    at = i;
  });
  Softmax softmax;
  softmax.peak = block_max<kRowThreads>(own, shared.floats);
  softmax.finite = softmax.peak > -INFINITY && softmax.peak < INFINITY;
  if (!softmax.finite) return softmax;
  // Ids are exact in float32.
  softmax.argmax = -static_cast<int>(block_max<kRowThreads>(
      own == softmax.peak ? -static_cast<float>(at) : -INFINITY, shared.floats));
  softmax.total = sum_over(
      row, shared, [&](int i, float x) { return mass_of(expf(logit(i, x) - softmax.peak)); });
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

struct Edge {
  uint32_t key = 0;
  uint64_t below = 0;
};

// The largest key less than `above` for which goes(weights of all below it together): so it is for
// key 0, and not for `above`. A pass tries several keys, so that there are a third as many passes
// as bits.
template <int kWide, class Key, class Weight, class Goes>
__device__ Edge edge_of(const Row<kWide>& row, uint32_t above, Shared& shared, Key&& key_of_element,
                        Weight&& weight, Goes&& goes) {
  Edge edge;
  while (above - edge.key > 1) {
    const uint32_t step = (above - edge.key + kThresholds) / (kThresholds + 1);
    uint64_t own[kThresholds] = {};
    row.for_own([&](int, float x) {
      const uint32_t key = key_of_element(x);
      if (key < edge.key || key >= above) return;
      for (int t = 0; t < kThresholds; ++t)
        if (key - edge.key < (t + 1) * step) own[t] += weight(x);
    });
    const uint64_t sum = scattered_sum(own);
    constexpr int kLanes = kWarp / kThresholds;  // that have the same sum
    if (lane() % kLanes == 0) shared.of_warps[lane() / kLanes][threadIdx.x / kWarp] = sum;
    __syncthreads();
    const Edge last = edge;
    for (int t = 0; t < kThresholds; ++t) {
      Edge next{last.key + (t + 1) * step, last.below};
      for (int warp = 0; warp < kRowWarps; ++warp) next.below += shared.of_warps[t][warp];
      if (next.key >= above) break;
      if (!goes(next.below)) {
        above = next.key;
        break;
      }
      edge = next;
    }
    __syncthreads();
  }
  return edge;
}

// Relative probabilities that go: all whose bits are less than `edge`, of those that equal it the
// ones before `first`.
struct Tail {
  uint32_t edge = 0;
  int first = 0;
};

// From the least likely up, of equal ones from the first, relative probabilities go while they are
// at most `tail` of all together; the last one stays.
template <int kWide>
__device__ Tail tail_of(const Row<kWide>& e, float tail, Shared& shared) {
  const auto total =
      static_cast<double>(sum_over(e, shared, [](int, float x) { return mass_of(x); }));
  const auto share = [&](uint64_t mass) { return static_cast<double>(mass) / total; };
  const auto goes = [&](double part) { return static_cast<float>(part) <= tail; };
  const Edge edge = edge_of(  // the largest is 1
      e, bits_of_float(1.0f) + 1, shared, [](float x) { return bits_of_float(x); },
      [](float x) { return mass_of(x); }, [&](uint64_t below) { return goes(share(below)); });
  const auto equal = [&](int, float x) { return uint64_t{bits_of_float(x) == edge.key}; };
  // Each is rounded as the CPU's: of equals both leave the same.
  const double each = static_cast<float>(share(mass_of(float_of_bits(edge.key))));
  uint64_t gone = 0, some = sum_over(e, shared, equal);  // some is too many
  while (some - gone > 1) {
    const uint64_t middle = gone + (some - gone) / 2;
    (goes(share(edge.below) + static_cast<double>(middle) * each) ? gone : some) = middle;
  }
  return {edge.key, find_in_order(e, gone, shared, equal)};
}

// There are fewer draws than multiprocessors: registers need not leave room for a second block.
template <int kWide>
__global__ void __launch_bounds__(kRowThreads, 1) draw_tokens_kernel(SamplingView v) {
  __shared__ Shared shared;
  const TokenDraw& draw = v.draws[blockIdx.x];
  const Row<kWide> logits{v.logits + draw.row * v.vocabulary, static_cast<int>(v.vocabulary)};
  for (int64_t i = threadIdx.x; i < draw.marks; i += kRowThreads) {
    const int32_t id = draw.marked[i];
    if (id < logits.count) atomicOr(draw.seen + id / 32, 1u << (id % 32));  // else no head gives it
  }
  __syncthreads();
  const auto tempered = [&](int, float x) { return v.temperature == 1 ? x : x / v.temperature; };
  const auto penalised = [&](int i, float x) {
    if (draw.seen != nullptr && (draw.seen[i / 32] >> (i % 32) & 1u) != 0) {
      x = x < 0 ? x * v.penalty : x / v.penalty;
    }
    return tempered(i, x);
  };
  Softmax drawn = softmax_of(logits, shared, tempered);
  const float log_sum_exp = log_of_sum(drawn.peak, drawn.total);
  if (draw.seen != nullptr && drawn.finite) drawn = softmax_of(logits, shared, penalised);
  const auto relative = [&](int i, float x) { return expf(penalised(i, x) - drawn.peak); };
  DrawnToken token;
  token.id = -1;
  const auto draw_from = [&](const Row<kWide>& row, uint64_t total, auto&& mass) {
    const auto wanted = static_cast<uint64_t>(draw.uniform * static_cast<double>(total));
    token.id = find_in_order(row, wanted < total ? wanted : total - 1, shared, mass);
    token.drawn_log_prob = penalised(token.id, logits.x[token.id]) - log_of_sum(drawn.peak, total);
  };
  const bool top_k = v.top_k > 0 && v.top_k < v.vocabulary;
  if (drawn.finite && v.greedy) {
    token.id = drawn.argmax;
  } else if (drawn.finite && !top_k && v.tail == 0 && v.min_p == 0) {
    draw_from(logits, drawn.total, [&](int i, float x) { return mass_of(relative(i, x)); });
  } else if (drawn.finite) {
    float* to = v.scratch + blockIdx.x * v.vocabulary;
    const Row<kWide> e{to, logits.count};
    if (top_k) {
      logits.write(to, penalised);
      const auto others = static_cast<uint64_t>(v.vocabulary - v.top_k);
      const float least = float_of_key(
          edge_of(
              e, key_of(drawn.peak) + 1, shared, [](float x) { return key_of(x); },
              [](float) { return uint64_t{1}; }, [&](uint64_t below) { return below <= others; })
              .key);
      e.write(to, [&](int, float x) { return x < least ? 0.0f : expf(x - drawn.peak); });
    } else {
      logits.write(to, relative);
    }
    const Tail gone = v.tail > 0 ? tail_of(e, v.tail, shared) : Tail{};
    const auto mass = [&](int i, float x) {
      const uint32_t bits = bits_of_float(x);
      const bool cut = bits < gone.edge || (bits == gone.edge && i < gone.first) || x < v.min_p;
      return cut ? uint64_t{0} : mass_of(x);
    };
    draw_from(e, sum_over(e, shared, mass), mass);
  }
  if (token.id >= 0) token.log_prob = tempered(token.id, logits.x[token.id]) - log_sum_exp;
  if (threadIdx.x == 0) v.drawn[blockIdx.x] = token;
}

}  // namespace

int draw_tokens(const SamplingView& v, CUstream_st* stream) {
  return with_width<float>(aligned(v.logits) && aligned(v.scratch), v.vocabulary, [&](auto width) {
    return launch<kRowThreads>(draw_tokens_kernel<decltype(width)::value>, v.count, stream, v);
  });
}

}  // namespace temper::trainer::cuda
