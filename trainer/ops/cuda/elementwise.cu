// RoPE, SwiGLU, GELU, dropout: a block a row (a token), or a thread a few elements.
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

template <class T, int kWide>
__global__ void rope_kernel(RopeView v) {
  const int packs = static_cast<int>(v.half) / kWide;
  const int64_t row = blockIdx.x;
  for (int p = static_cast<int>(threadIdx.x); p < static_cast<int>(v.heads) * packs;
       p += kThreads) {
    const int64_t i = p % packs * kWide;
    T* a = static_cast<T*>(v.x) + row * v.stride + p / packs * v.dim + i;
    T* b = a + v.half;
    const auto first = load_pack<kWide>(a), second = load_pack<kWide>(b);
    Pack<T, kWide> to_a, to_b;
    for (int k = 0; k < kWide; ++k) {
      const float cos = v.cos[row * v.half + i + k], sin = v.sin[row * v.half + i + k] * v.sign;
      const float x = widened(first.at[k]), y = widened(second.at[k]);
      rounded_store(&to_a.at[k], x * cos - y * sin);
      rounded_store(&to_b.at[k], y * cos + x * sin);
    }
    store_pack(a, to_a);
    store_pack(b, to_b);
  }
}

// The quick division is within 2 ulp, and 0 where the denominator is above 2^126.
__device__ inline float sigmoid(float x) { return __fdividef(1.0f, 1.0f + expf(-x)); }

template <class T, int kWide>
__global__ void swiglu_kernel(const T* gate_up, T* out, int64_t dim) {
  const T* gate = gate_up + blockIdx.x * 2 * dim;
  for (int64_t i = threadIdx.x * kWide; i < dim; i += kThreads * kWide) {
    const auto g = load_pack<kWide>(gate + i), up = load_pack<kWide>(gate + dim + i);
    Pack<T, kWide> to;
    for (int k = 0; k < kWide; ++k) {
      const float x = widened(g.at[k]);
      rounded_store(&to.at[k], x * sigmoid(x) * widened(up.at[k]));
    }
    store_pack(out + blockIdx.x * dim + i, to);
  }
}

template <class T, int kWide>
__global__ void swiglu_backward_kernel(const T* dout, const T* gate_up, T* dgate_up, int64_t dim) {
  const T* gate = gate_up + blockIdx.x * 2 * dim;
  T* dgate = dgate_up + blockIdx.x * 2 * dim;
  for (int64_t i = threadIdx.x * kWide; i < dim; i += kThreads * kWide) {
    const auto g = load_pack<kWide>(gate + i), up = load_pack<kWide>(gate + dim + i);
    const auto d = load_pack<kWide>(dout + blockIdx.x * dim + i);
    Pack<T, kWide> to_gate, to_up;
    for (int k = 0; k < kWide; ++k) {
      const float x = widened(g.at[k]), dy = widened(d.at[k]);
      const float share = sigmoid(x);
      rounded_store(&to_gate.at[k], dy * widened(up.at[k]) * share * (1.0f + x * (1.0f - share)));
      rounded_store(&to_up.at[k], dy * x * share);
    }
    store_pack(dgate + i, to_gate);
    store_pack(dgate + dim + i, to_up);
  }
}

// As in ops/cpu/rows.inl.
constexpr float kGeluSlope = 0.79788456080286535588f;
constexpr float kGeluCubic = 0.044715f;
template <class T>
__device__ float normal_share(float x, bool tanh) {
  if (tanh) return sigmoid(2.0f * kGeluSlope * (x + kGeluCubic * x * x * x));
  // 1 + erf is within 1e-7, which is enough for 16 bits; erfc, which keeps all digits of the left
  // tail, costs twice as much.
  if constexpr (sizeof(T) == 2) return 0.5f + 0.5f * erff(x * 0.70710678118654752f);
  return 0.5f * erfcf(x * -0.70710678118654752f);
}

template <class T, int kWide>
__global__ void gelu_kernel(const T* x, T* out, int64_t count, bool tanh) {
  const int64_t i = thread_number() * kWide;
  if (i >= count) return;
  const auto in = load_pack<kWide>(x + i);
  Pack<T, kWide> to;
  for (int k = 0; k < kWide; ++k) {
    const float v = widened(in.at[k]);
    rounded_store(&to.at[k], v * normal_share<T>(v, tanh));
  }
  store_pack(out + i, to);
}

template <class T, int kWide>
__global__ void gelu_backward_kernel(const T* dout, const T* x, T* dx, int64_t count, bool tanh) {
  const int64_t i = thread_number() * kWide;
  if (i >= count) return;
  const auto in = load_pack<kWide>(x + i), d = load_pack<kWide>(dout + i);
  Pack<T, kWide> to;
  for (int k = 0; k < kWide; ++k) {
    const float v = widened(in.at[k]), share = normal_share<T>(v, tanh);
    const float density =
        tanh ? share * (1.0f - share) * (2.0f * kGeluSlope * (1.0f + 3.0f * kGeluCubic * v * v))
             : expf(-0.5f * v * v) * (0.5f * kGeluSlope);
    rounded_store(&to.at[k], widened(d.at[k]) * (share + v * density));
  }
  store_pack(dx + i, to);
}

// SplitMix64 of a pair's number, as on the CPU (ops/low_rank.cpp): 32 bits for each of the two.
__device__ inline uint64_t draws_of_pair(uint64_t seed, int64_t pair) {
  uint64_t z = seed + static_cast<uint64_t>(pair) + 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

template <class T, int kWide>
__global__ void dropout_kernel(DropoutView v) {
  const int64_t i = thread_number() * kWide;
  if (i >= v.count) return;
  const auto from = load_pack<kWide>(static_cast<const T*>(v.from) + i);
  Pack<T, kWide> to;
  uint64_t draws = 0;
  for (int k = 0; k < kWide; ++k) {
    if (k % 2 == 0) draws = draws_of_pair(v.seed, (i + k) / 2);
    const auto draw = static_cast<uint32_t>(draws >> (32 * ((i + k) & 1)));
    rounded_store(&to.at[k], draw < v.limit ? 0.0f : widened(from.at[k]) * v.scale);
  }
  store_pack(static_cast<T*>(v.to) + i, to);
}

}  // namespace

int rope(Element type, const RopeView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    return with_width<T>(aligned(v.x), v.stride | v.dim | v.half, [&](auto width) {
      return launch(rope_kernel<T, decltype(width)::value>, v.rows, stream, v);
    });
  });
}

int swiglu(Element type, const void* gate_up, void* out, int64_t rows, int64_t dim,
           CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    return with_width<T>(aligned(gate_up) && aligned(out), dim, [&](auto width) {
      return launch(swiglu_kernel<T, decltype(width)::value>, rows, stream,
                    static_cast<const T*>(gate_up), static_cast<T*>(out), dim);
    });
  });
}

int swiglu_backward(Element type, const void* dout, const void* gate_up, void* dgate_up,
                    int64_t rows, int64_t dim, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const bool in_line = aligned(dout) && aligned(gate_up) && aligned(dgate_up);
    return with_width<T>(in_line, dim, [&](auto width) {
      return launch(swiglu_backward_kernel<T, decltype(width)::value>, rows, stream,
                    static_cast<const T*>(dout), static_cast<const T*>(gate_up),
                    static_cast<T*>(dgate_up), dim);
    });
  });
}

int gelu(Element type, const void* x, void* out, int64_t count, bool tanh, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    return with_width<T>(aligned(x) && aligned(out), count, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      return launch(gelu_kernel<T, kWide>, blocks_of(count / kWide), stream,
                    static_cast<const T*>(x), static_cast<T*>(out), count, tanh);
    });
  });
}

int gelu_backward(Element type, const void* dout, const void* x, void* dx, int64_t count, bool tanh,
                  CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    return with_width<T>(aligned(dout) && aligned(x) && aligned(dx), count, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      return launch(gelu_backward_kernel<T, kWide>, blocks_of(count / kWide), stream,
                    static_cast<const T*>(dout), static_cast<const T*>(x), static_cast<T*>(dx),
                    count, tanh);
    });
  });
}

int dropout(Element type, const DropoutView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    return with_width<T>(aligned(v.from) && aligned(v.to), v.count, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      return launch(dropout_kernel<T, kWide>, blocks_of(v.count / kWide), stream, v);
    });
  });
}

}  // namespace temper::trainer::cuda
