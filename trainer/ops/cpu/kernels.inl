// The kernels of kernels.h in namespace TEMPER_ISA. Included by one small .cpp for each instruction
// set; includes nothing that could leave inline functions of the wrong instruction set to the
// linker.
#include <cmath>
#include <cstdint>

#include "trainer/ops/cpu/kernels.h"

namespace temper::trainer::cpu {
extern const Kernels TEMPER_ISA_KERNELS;
namespace TEMPER_ISA {
namespace {

constexpr int64_t kLanes = 16;
typedef float Floats __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
// The same in memory: any address, and over arrays of numbers.
typedef Floats LooseFloats __attribute__((aligned(4), may_alias));
typedef Ints LooseInts __attribute__((aligned(4), may_alias));
typedef Halves LooseHalves __attribute__((aligned(2), may_alias));

inline Floats all(float value) { return value - Floats{}; }
inline Floats bits_to_floats(Words w) { return reinterpret_cast<Floats>(w); }
inline Floats widen(Halves h) { return bits_to_floats(__builtin_convertvector(h, Words) << 16); }

// To nearest even; a NaN stays one (its low bits might all be in the part that is cut off).
inline Halves narrow(Floats f) {
  const Words w = reinterpret_cast<Words>(f);
  const Words rounded = (w + 0x7fffu + ((w >> 16) & 1u)) >> 16;
  const Words kept = f == f ? rounded : Words{} + 0x7fc0u;
  return __builtin_convertvector(kept, Halves);
}

inline Floats load16(const float* p) { return *reinterpret_cast<const LooseFloats*>(p); }
inline Floats load16(const Bf16* p) { return widen(*reinterpret_cast<const LooseHalves*>(p)); }
inline void store16(float* p, Floats v) { *reinterpret_cast<LooseFloats*>(p) = v; }
inline void store16(Bf16* p, Floats v) { *reinterpret_cast<LooseHalves*>(p) = narrow(v); }

inline float to_float(float x) { return x; }
inline float to_float(Bf16 x) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16);
}

// The last, shorter group of a row, filled up with zeros.
template <class T>
inline Floats load_some(const T* p, int64_t count) {
  Floats v{};
  for (int64_t i = 0; i < count; ++i) v[i] = to_float(p[i]);
  return v;
}
inline void store_some(float* p, Floats v, int64_t count) {
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}
inline void store_some(Bf16* p, Floats v, int64_t count) {
  const Halves h = narrow(v);
  for (int64_t i = 0; i < count; ++i) p[i].bits = h[i];
}

template <class T>
inline Floats get(const T* row, int64_t i, int64_t dim) {
  return i + kLanes <= dim ? load16(row + i) : load_some(row + i, dim - i);
}
template <class T>
inline void put(T* row, int64_t i, int64_t dim, Floats v) {
  if (i + kLanes <= dim) {
    store16(row + i, v);
  } else {
    store_some(row + i, v, dim - i);
  }
}

inline float sum(Floats v) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = v[i] + v[i + 8];
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }

// e^x to 1e-7 relative: 2^n * polynomial on [-ln2/2, ln2/2] (Cephes' coefficients). Below -87.3:
// about 1e-38; NaN stays NaN.
inline Floats exp16(Floats x) {
  x = x > 88.3762626647949f ? all(88.3762626647949f) : x;
  x = x < -87.3365478515625f ? all(-87.3365478515625f) : x;
  const Floats magic = all(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x * 1.44269504088896341f + magic;
  const Floats n = shifted - magic;
  const Floats r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Floats p = all(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  const Words exponent = (reinterpret_cast<Words>(shifted) + 127u) << 23;
  return p * bits_to_floats(exponent);
}

template <class T>
void rms_norm(const T* x, int64_t stride_x, const T* weight, T* y, int64_t stride_y, float* rstd,
              int64_t rows, int64_t heads, int64_t dim, float eps) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      const T* in = x + r * stride_x + h * dim;
      T* out = y + r * stride_y + h * dim;
      Floats squares{};
      for (int64_t i = 0; i < dim; i += kLanes) {
        const Floats v = get(in, i, dim);
        squares += v * v;
      }
      const float scale = 1.0f / std::sqrt(sum(squares) / static_cast<float>(dim) + eps);
      rstd[r * heads + h] = scale;
      for (int64_t i = 0; i < dim; i += kLanes)
        put(out, i, dim, get(in, i, dim) * scale * get(weight, i, dim));
    }
  }
}

template <class T>
void rms_norm_backward(const T* dy, int64_t stride_dy, const T* x, int64_t stride_x,
                       const T* weight, const float* rstd, const T* dres, T* dx, int64_t stride_dx,
                       float* dweight, int64_t rows, int64_t heads, int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      const T* in = x + r * stride_x + h * dim;
      const T* dout = dy + r * stride_dy + h * dim;
      T* din = dx + r * stride_dx + h * dim;
      const float scale = rstd[r * heads + h];
      Floats dots{};
      for (int64_t i = 0; i < dim; i += kLanes) {
        const Floats xhat = get(in, i, dim) * scale;
        const Floats d = get(dout, i, dim);
        dots += d * get(weight, i, dim) * xhat;
        put(dweight, i, dim, get(dweight, i, dim) + d * xhat);
      }
      const float mean = sum(dots) / static_cast<float>(dim);
      for (int64_t i = 0; i < dim; i += kLanes) {
        Floats d =
            (get(dout, i, dim) * get(weight, i, dim) - get(in, i, dim) * scale * mean) * scale;
        if (dres != nullptr) d += get(dres + r * stride_dx + h * dim, i, dim);
        put(din, i, dim, d);
      }
    }
  }
}

template <class T>
void rope(T* x, int64_t stride, const float* cos, const float* sin, int64_t rows, int64_t heads,
          int64_t dim, int64_t rot, float sign) {
  const int64_t half = rot / 2;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < heads; ++h) {
      T* a = x + r * stride + h * dim;
      T* b = a + half;
      for (int64_t i = 0; i < half; i += kLanes) {
        const Floats c = get(cos + r * half, i, half);
        const Floats s = get(sin + r * half, i, half) * sign;
        const Floats u = get(a, i, half);
        const Floats v = get(b, i, half);
        put(a, i, half, u * c - v * s);
        put(b, i, half, v * c + u * s);
      }
    }
  }
}

template <class T>
void swiglu(const T* gate_up, T* out, int64_t rows, int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * dim;
    const T* up = gate + dim;
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Floats g = get(gate, i, dim);
      put(out + r * dim, i, dim, g / (1.0f + exp16(-g)) * get(up, i, dim));
    }
  }
}

template <class T>
void swiglu_backward(const T* dout, const T* gate_up, T* dgate_up, int64_t rows, int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    const T* gate = gate_up + r * 2 * dim;
    const T* up = gate + dim;
    T* dgate = dgate_up + r * 2 * dim;
    T* dup = dgate + dim;
    for (int64_t i = 0; i < dim; i += kLanes) {
      const Floats g = get(gate, i, dim);
      const Floats d = get(dout + r * dim, i, dim);
      const Floats sigmoid = 1.0f / (1.0f + exp16(-g));
      put(dgate, i, dim, d * get(up, i, dim) * sigmoid * (1.0f + g * (1.0f - sigmoid)));
      put(dup, i, dim, d * g * sigmoid);
    }
  }
}

template <class T>
void load(const T* src, int64_t src_stride, float* dst, int64_t dst_stride, int64_t rows,
          int64_t dim, float scale) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < dim; i += kLanes) {
      put(dst + r * dst_stride, i, dim, get(src + r * src_stride, i, dim) * scale);
    }
  }
}

// Sixteen rows of sixteen lanes turned into columns: halves, quarters, ... change places.
template <int kStep>
inline void transpose_step(Words* rows) {
  Ints low{};
  Ints high{};
  for (int lane = 0; lane < kLanes; ++lane) {
    low[lane] = (lane & kStep) == 0 ? lane : lane - kStep + 16;
    high[lane] = (lane & kStep) == 0 ? lane + kStep : lane + 16;
  }
  for (int r = 0; r < kLanes; ++r) {
    if ((r & kStep) != 0) continue;
    const Words a = rows[r];
    const Words b = rows[r + kStep];
    rows[r] = __builtin_shuffle(a, b, low);
    rows[r + kStep] = __builtin_shuffle(a, b, high);
  }
}
inline void transpose(Words* rows) {
  transpose_step<8>(rows);
  transpose_step<4>(rows);
  transpose_step<2>(rows);
  transpose_step<1>(rows);
}

// dst[c, r] = src[r, c] * scale in tiles of sixteen.
template <class From, class To>
inline void transposed_copy(const From* src, int64_t src_stride, To* dst, int64_t dst_stride,
                            int64_t rows, int64_t dim, float scale) {
  for (int64_t r = 0; r < rows; r += kLanes) {
    const int64_t height = rows - r < kLanes ? rows - r : kLanes;
    for (int64_t i = 0; i < dim; i += kLanes) {
      const int64_t width = dim - i < kLanes ? dim - i : kLanes;
      Words tile[kLanes] = {};
      for (int64_t k = 0; k < height; ++k) {
        tile[k] = reinterpret_cast<Words>(get(src + (r + k) * src_stride, i, dim) * scale);
      }
      transpose(tile);
      for (int64_t k = 0; k < width; ++k)
        put(dst + (i + k) * dst_stride, r, rows, bits_to_floats(tile[k]));
    }
  }
}

// Words of a product's operands: a float, or two bfloat16 that follow each other in k.
typedef Words LooseWords __attribute__((aligned(2), may_alias));

template <class T>
constexpr int64_t kPerWord = sizeof(float) / sizeof(T);

inline uint32_t bits_of(float x) { return __builtin_bit_cast(uint32_t, x); }
inline uint32_t bits_of(Bf16 x) { return x.bits; }

// Lane c: src[0, c], or src[0, c] and src[1, c]; what lies beyond k rows or `columns` is zero.
inline Words words_down(const float* src, int64_t, int64_t, int64_t columns) {
  if (columns >= kLanes) return *reinterpret_cast<const LooseWords*>(src);
  Words w{};
  for (int64_t c = 0; c < columns; ++c) w[c] = bits_of(src[c]);
  return w;
}
inline Words words_down(const Bf16* src, int64_t stride, int64_t k, int64_t columns) {
  if (columns >= kLanes) {
    const Words low = __builtin_convertvector(*reinterpret_cast<const LooseHalves*>(src), Words);
    if (k < 2) return low;
    return low |
           (__builtin_convertvector(*reinterpret_cast<const LooseHalves*>(src + stride), Words)
            << 16);
  }
  Words w{};
  for (int64_t c = 0; c < columns; ++c)
    w[c] = bits_of(src[c]) | (k < 2 ? 0u : bits_of(src[stride + c]) << 16);
  return w;
}

// Lane j: word j of a row of k elements.
template <class T>
inline Words words_along(const T* row, int64_t k) {
  if (k >= kLanes * kPerWord<T>) return *reinterpret_cast<const LooseWords*>(row);
  Words w{};
  for (int64_t i = 0; i < k; ++i) w[i / kPerWord<T>] |= bits_of(row[i]) << (16 * (i % kPerWord<T>));
  return w;
}

inline void put_words(void* dst, Words w, int64_t count) {
  auto* out = static_cast<uint32_t*>(dst);
  if (count >= kLanes) {
    *reinterpret_cast<LooseWords*>(out) = w;
  } else {
    for (int64_t i = 0; i < count; ++i)
      __builtin_memcpy(out + i, reinterpret_cast<const uint32_t*>(&w) + i, sizeof(uint32_t));
  }
}

template <class T>
void pack_rows(const T* src, int64_t stride, T* dst, int64_t dst_columns, int64_t k,
               int64_t columns) {
  for (int64_t p = 0; p < k; p += kPerWord<T>) {
    for (int64_t c = 0; c < columns; c += kLanes) {
      put_words(dst + p * dst_columns + c * kPerWord<T>,
                words_down(src + p * stride + c, stride, k - p, columns - c), columns - c);
    }
  }
}

template <class T>
void pack_columns(const T* src, int64_t stride, T* dst, int64_t dst_columns, int64_t k,
                  int64_t columns) {
  constexpr int64_t kStep = kLanes * kPerWord<T>;
  for (int64_t c = 0; c < columns; c += kLanes) {
    const int64_t width = columns - c < kLanes ? columns - c : kLanes;
    for (int64_t p = 0; p < k; p += kStep) {
      Words tile[kLanes] = {};
      for (int64_t i = 0; i < width; ++i) tile[i] = words_along(src + (c + i) * stride + p, k - p);
      transpose(tile);
      for (int64_t i = 0; i < kLanes && p + i * kPerWord<T> < k; ++i) {
        put_words(dst + (p + i * kPerWord<T>)*dst_columns + c * kPerWord<T>, tile[i], width);
      }
    }
  }
}

template <class T>
void pack_transposed(const T* src, int64_t stride, T* dst, int64_t dst_stride, int64_t k,
                     int64_t m) {
  constexpr int64_t kStep = kLanes * kPerWord<T>;
  for (int64_t p = 0; p < k; p += kStep) {
    const int64_t words = k - p < kStep ? (k - p + kPerWord<T> - 1) / kPerWord<T> : kLanes;
    for (int64_t c = 0; c < m; c += kLanes) {
      const int64_t width = m - c < kLanes ? m - c : kLanes;
      Words tile[kLanes] = {};
      for (int64_t i = 0; i < words; ++i) {
        const int64_t row = p + i * kPerWord<T>;
        tile[i] = words_down(src + row * stride + c, stride, k - row, width);
      }
      transpose(tile);
      for (int64_t i = 0; i < width; ++i) put_words(dst + (c + i) * dst_stride + p, tile[i], words);
    }
  }
}

template <class T>
void load_transposed(const T* src, int64_t src_stride, float* dst, int64_t dst_stride, int64_t rows,
                     int64_t dim, float scale) {
  transposed_copy(src, src_stride, dst, dst_stride, rows, dim, scale);
}

template <class T>
void store(const float* src, int64_t src_stride, T* dst, int64_t dst_stride, int64_t rows,
           int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < dim; i += kLanes)
      put(dst + r * dst_stride, i, dim, get(src + r * src_stride, i, dim));
  }
}

template <class T>
void store_sum(const float* src, int64_t src_stride, const T* add, int64_t add_stride, T* dst,
               int64_t dst_stride, int64_t rows, int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < dim; i += kLanes) {
      put(dst + r * dst_stride, i, dim,
          get(src + r * src_stride, i, dim) + get(add + r * add_stride, i, dim));
    }
  }
}

template <class T>
void store_transposed(const float* src, int64_t src_stride, T* dst, int64_t dst_stride,
                      int64_t rows, int64_t dim, float scale) {
  transposed_copy(src, src_stride, dst, dst_stride, dim, rows, scale);
}

// dots[r] = sum over a row of a * b
template <class T>
void row_dots(const T* a, int64_t a_stride, const T* b, int64_t b_stride, float* dots, int64_t rows,
              int64_t dim) {
  for (int64_t r = 0; r < rows; ++r) {
    Floats s{};
    for (int64_t i = 0; i < dim; i += kLanes)
      s += get(a + r * a_stride, i, dim) * get(b + r * b_stride, i, dim);
    dots[r] = sum(s);
  }
}

template <class T>
void column_sums(const T* x, int64_t stride, float* sums, int64_t rows, int64_t dim) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    Floats s = get(sums, i, dim);
    for (int64_t r = 0; r < rows; ++r) s += get(x + r * stride, i, dim);
    put(sums, i, dim, s);
  }
}

template <class T>
void add(const T* x, float* accumulator, int64_t dim) {
  for (int64_t i = 0; i < dim; i += kLanes)
    put(accumulator, i, dim, get(accumulator, i, dim) + get(x, i, dim));
}

template <class T>
void softmax_gradient(const float* logits, float log_sum_exp, int64_t label, float scale, T* out,
                      int64_t dim) {
  for (int64_t i = 0; i < dim; i += kLanes) {
    Floats p = exp16(get(logits, i, dim) - log_sum_exp);
    if (label >= i && label < i + kLanes) p[label - i] -= 1.0f;
    put(out, i, dim, p * scale);
  }
}

SoftmaxRow softmax_row(const float* logits, int64_t dim) {
  Floats peaks = all(-INFINITY);
  for (int64_t i = 0; i + kLanes <= dim; i += kLanes) peaks = larger(load16(logits + i), peaks);
  float peak = -INFINITY;
  for (int64_t i = 0; i < kLanes; ++i) peak = peaks[i] > peak ? peaks[i] : peak;
  for (int64_t i = dim / kLanes * kLanes; i < dim; ++i) peak = logits[i] > peak ? logits[i] : peak;

  Floats totals{};
  Floats weighted{};
  int64_t argmax = -1;
  for (int64_t i = 0; i < dim; i += kLanes) {
    const Floats v = get(logits, i, dim) - peak;
    Floats e = exp16(v);
    if (dim - i < kLanes) {
      for (int64_t c = dim - i; c < kLanes; ++c) e[c] = 0;
    }
    totals += e;
    weighted += e * v;
  }
  for (int64_t i = 0; i < dim && argmax < 0; ++i) {
    if (logits[i] == peak) argmax = i;
  }
  const float total = sum(totals);
  const float log_total = std::log(total);
  return {peak + log_total, log_total - sum(weighted) / total, argmax};
}

void softmax(float* scores, int64_t keys, int64_t columns, int64_t ld, const int32_t* first,
             const int32_t* last, float* peak, float* total, float* rescale) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Ints from = *reinterpret_cast<const LooseInts*>(first + c);
    const Ints to = *reinterpret_cast<const LooseInts*>(last + c);
    const Floats old = load16(peak + c);
    Floats top = old;
    for (int64_t k = 0; k < keys; ++k) {
      const Ints key = Ints{} + static_cast<int32_t>(k);
      const Floats s = load16(scores + k * ld + c);
      top = (key >= from) & (key < to) & (s > top) ? s : top;
    }
    // A column that has seen no key yet keeps -inf; its exponent must not be inf - inf.
    const Floats base = top == -INFINITY ? Floats{} : top;
    Floats sums{};
    for (int64_t k = 0; k < keys; ++k) {
      const Ints key = Ints{} + static_cast<int32_t>(k);
      const Floats e = exp16(load16(scores + k * ld + c) - base);
      const Floats p = (key >= from) & (key < to) ? e : Floats{};
      sums += p;
      store16(scores + k * ld + c, p);
    }
    const Floats factor = old == -INFINITY ? Floats{} : exp16(old - base);
    store16(rescale + c, factor);
    store16(total + c, load16(total + c) * factor + sums);
    store16(peak + c, top);
  }
}

void scale_columns(float* x, int64_t rows, int64_t columns, int64_t ld, const float* factor) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; c += kLanes)
      store16(x + r * ld + c, load16(x + r * ld + c) * load16(factor + c));
  }
}

void softmax_backward(float* scores, float* dscores, int64_t keys, int64_t columns, int64_t ld,
                      const int32_t* first, const int32_t* last, const float* lse,
                      const float* delta) {
  for (int64_t c = 0; c < columns; c += kLanes) {
    const Ints from = *reinterpret_cast<const LooseInts*>(first + c);
    const Ints to = *reinterpret_cast<const LooseInts*>(last + c);
    const Floats base = load16(lse + c);
    const Floats shift = load16(delta + c);
    for (int64_t k = 0; k < keys; ++k) {
      const Ints key = Ints{} + static_cast<int32_t>(k);
      const Floats e = exp16(load16(scores + k * ld + c) - base);
      const Floats p = (key >= from) & (key < to) ? e : Floats{};
      store16(scores + k * ld + c, p);
      store16(dscores + k * ld + c, p * (load16(dscores + k * ld + c) - shift));
    }
  }
}

// Four rows by 32 columns at a time in registers.
void gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b, int64_t ldb,
          float* c, int64_t ldc, bool add_to) {
  constexpr int64_t kRows = 4;
  for (int64_t j = 0; j < n; j += 2 * kLanes) {
    for (int64_t i = 0; i < m; i += kRows) {
      const int64_t rows = m - i < kRows ? m - i : kRows;
      Floats left[kRows] = {};
      Floats right[kRows] = {};
      for (int64_t p = 0; p < k; ++p) {
        const Floats b0 = get(b + p * ldb, j, n);
        const Floats b1 = j + kLanes < n ? get(b + p * ldb, j + kLanes, n) : Floats{};
        for (int64_t r = 0; r < rows; ++r) {
          const float x = a[(i + r) * lda + p];
          left[r] += x * b0;
          right[r] += x * b1;
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        float* out = c + (i + r) * ldc;
        put(out, j, n, add_to ? get(out, j, n) + left[r] : left[r]);
        if (j + kLanes < n)
          put(out, j + kLanes, n, add_to ? get(out, j + kLanes, n) + right[r] : right[r]);
      }
    }
  }
}

template <class T>
constexpr RowKernels<T> rows_of() {
  return {rms_norm<T>, rms_norm_backward<T>, rope<T>,  swiglu<T>,          swiglu_backward<T>,
          load<T>,     load_transposed<T>,   store<T>, store_sum<T>,       store_transposed<T>,
          row_dots<T>, column_sums<T>,       add<T>,   softmax_gradient<T>};
}

}  // namespace
}  // namespace TEMPER_ISA

const Kernels TEMPER_ISA_KERNELS = {
    TEMPER_ISA_NAME,
    TEMPER_ISA::rows_of<float>(),
    TEMPER_ISA::rows_of<Bf16>(),
    {TEMPER_ISA::pack_rows<float>, TEMPER_ISA::pack_columns<float>,
     TEMPER_ISA::pack_transposed<float>},
    {TEMPER_ISA::pack_rows<Bf16>, TEMPER_ISA::pack_columns<Bf16>,
     TEMPER_ISA::pack_transposed<Bf16>},
    {TEMPER_ISA::softmax, TEMPER_ISA::scale_columns, TEMPER_ISA::softmax_backward},
    TEMPER_ISA::softmax_row,
    TEMPER_ISA::gemm,
};

}  // namespace temper::trainer::cpu
