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

// The types of sixteen bits: widened exactly, narrowed to nearest even.
template <class T>
concept Narrow = sizeof(T) == sizeof(uint16_t);

inline Floats widen(Bf16, Halves h) {
  return bits_to_floats(__builtin_convertvector(h, Words) << 16);
}

// A NaN stays one (its low bits might all be in the part that is cut off).
inline Halves narrow(Bf16, Floats f) {
  const Words w = reinterpret_cast<Words>(f);
  const Words rounded = (w + 0x7fffu + ((w >> 16) & 1u)) >> 16;
  const Words kept = f == f ? rounded : Words{} + 0x7fc0u;
  return __builtin_convertvector(kept, Halves);
}

#if defined(__AVX512F__)
inline Floats widen(Fp16, Halves h) {
  return reinterpret_cast<Floats>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(h)));
}
inline Halves narrow(Fp16, Floats f) {
  return reinterpret_cast<Halves>(
      _mm512_cvtps_ph(reinterpret_cast<__m512>(f), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
#elif defined(__F16C__)
inline Floats widen(Fp16, Halves h) {
  __m128i parts[2];
  __builtin_memcpy(parts, &h, sizeof h);
  const __m256 wide[2] = {_mm256_cvtph_ps(parts[0]), _mm256_cvtph_ps(parts[1])};
  Floats f;
  __builtin_memcpy(&f, wide, sizeof f);
  return f;
}
inline Halves narrow(Fp16, Floats f) {
  __m256 parts[2];
  __builtin_memcpy(parts, &f, sizeof f);
  const __m128i narrowed[2] = {_mm256_cvtps_ph(parts[0], _MM_FROUND_TO_NEAREST_INT),
                               _mm256_cvtps_ph(parts[1], _MM_FROUND_TO_NEAREST_INT)};
  Halves h;
  __builtin_memcpy(&h, narrowed, sizeof h);
  return h;
}
#else
// Exponents count from -15 instead of -127, in steps of 2^-24 below 2^-14.
inline Floats widen(Fp16, Halves h) {
  const Words w = __builtin_convertvector(h, Words);
  const Words exponent = w & 0x7c00u, sign = (w & 0x8000u) << 16;
  const Words offset = exponent == 0x7c00u ? Words{} + (224u << 23) : Words{} + (112u << 23);
  const Floats steps =
      __builtin_convertvector(reinterpret_cast<Ints>(w & 0x3ffu), Floats) * 0x1p-24f;
  const Words normal = ((w & 0x7fffu) << 13) + offset;
  return bits_to_floats(sign | (exponent == 0u ? reinterpret_cast<Words>(steps) : normal));
}
inline Halves narrow(Fp16, Floats f) {
  const Words w = reinterpret_cast<Words>(f);
  const Words sign = (w >> 16) & 0x8000u, magnitude = w & 0x7fffffffu;
  const Words moved = magnitude - (112u << 23);
  const Words rounded = (moved + 0xfffu + ((moved >> 13) & 1u)) >> 13;
  // Half has a last place of 2^-24: the sum is rounded there.
  const Words steps = reinterpret_cast<Words>(bits_to_floats(magnitude) + 0.5f) - (126u << 23);
  Words bits = magnitude < (113u << 23) ? steps : rounded;
  bits = magnitude >= (143u << 23) ? Words{} + 0x7c00u : bits;
  bits = magnitude > (255u << 23) ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : bits;
  return __builtin_convertvector(sign | bits, Halves);
}
#endif

inline Floats load16(const float* p) { return *reinterpret_cast<const LooseFloats*>(p); }
template <Narrow T>
inline Floats load16(const T* p) {
  return widen(T{}, *reinterpret_cast<const LooseHalves*>(p));
}
inline void store16(float* p, Floats v) { *reinterpret_cast<LooseFloats*>(p) = v; }
template <Narrow T>
inline void store16(T* p, Floats v) {
  *reinterpret_cast<LooseHalves*>(p) = narrow(T{}, v);
}

// The last, shorter group of a row, filled up with zeros.
inline Floats load_some(const float* p, int64_t count) {
  Floats v{};
  for (int64_t i = 0; i < count; ++i) v[i] = p[i];
  return v;
}
template <Narrow T>
inline Floats load_some(const T* p, int64_t count) {
  Halves h{};
  for (int64_t i = 0; i < count; ++i) h[i] = p[i].bits;
  return widen(T{}, h);
}
inline void store_some(float* p, Floats v, int64_t count) {
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}
template <Narrow T>
inline void store_some(T* p, Floats v, int64_t count) {
  const Halves h = narrow(T{}, v);
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
