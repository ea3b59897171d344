// Part of kernels.inl, inside its namespace.
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
