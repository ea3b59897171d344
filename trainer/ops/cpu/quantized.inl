// Part of kernels.inl, inside its namespace. Everything before a sum is bit for bit the same in all
// instruction sets: products that are rounded or compared, never added to.
typedef uint8_t Bytes8 __attribute__((vector_size(8)));
typedef int8_t Bytes16 __attribute__((vector_size(16)));
typedef uint64_t Longs __attribute__((vector_size(64)));

// Sixteen codes of eight bytes, the high half of a byte first: in the low four bits of the lanes,
// which is all that a shuffle looks at. (Widening the bytes themselves compiles to scalar code.)
inline Words codes16(const uint8_t* packed) {
  constexpr Ints kFirstWord = {-1, -1, -1, -1, -1, -1, -1, -1};
  constexpr Words kShift = {4, 0, 12, 8, 20, 16, 28, 24, 4, 0, 12, 8, 20, 16, 28, 24};
  uint32_t words[2];
  __builtin_memcpy(words, packed, sizeof words);
  return (kFirstWord ? Words{} + words[0] : Words{} + words[1]) >> kShift;
}
inline Bytes8 packed16(Ints codes) {
  const Longs pairs = reinterpret_cast<Longs>(codes);
  return __builtin_convertvector(((pairs & 15) << 4) | (pairs >> 32), Bytes8);
}
inline int64_t code_at(const uint8_t* packed, int64_t i) {
  return (i & 1) != 0 ? packed[i / 2] & 15 : packed[i / 2] >> 4;
}

// A value as T stores it, in a word, and back to memory.
inline Words stored_bits(const float*, Floats v) { return reinterpret_cast<Words>(v); }
template <Narrow T>
inline Words stored_bits(const T*, Floats v) {
  return __builtin_convertvector(narrow(T{}, v), Words);
}
inline void store_bits(float* p, Words w) {
  *reinterpret_cast<LooseFloats*>(p) = reinterpret_cast<Floats>(w);
}
template <Narrow T>
inline void store_bits(T* p, Words w) {
  *reinterpret_cast<LooseHalves*>(p) = __builtin_convertvector(w, Halves);
}
inline void store_one(float* p, uint32_t bits) { *p = __builtin_bit_cast(float, bits); }
template <Narrow T>
inline void store_one(T* p, uint32_t bits) {
  p->bits = static_cast<uint16_t>(bits);
}
// The value after that rounding.
inline Floats rounded_to(const float*, Floats v) { return v; }
template <Narrow T>
inline Floats rounded_to(const T*, Floats v) {
  return widen(T{}, narrow(T{}, v));
}

bool quantize4(const float* x, int64_t count, const FourBitCode& code, uint8_t* codes,
               float* absmax) {
  constexpr int32_t kMagnitude = 0x7fffffff;
  constexpr int32_t kInfinity = 0x7f800000;
  constexpr float kSmallest = 1e-38f;  // bitsandbytes' guard against a division by zero
  const Ints sorted = *reinterpret_cast<const LooseInts*>(code.sorted);
  for (int64_t begin = 0; begin < count; begin += kBlock4) {
    const int64_t n = count - begin < kBlock4 ? count - begin : kBlock4;
    const float* block = x + begin;
    Ints peaks{};  // magnitudes order as their bits do, NaN above infinity
    for (int64_t i = 0; i < n; i += kLanes) {
      const Ints bits = reinterpret_cast<Ints>(get(block, i, n)) & kMagnitude;
      peaks = bits > peaks ? bits : peaks;
    }
    int32_t peak_bits = 0;
    for (int64_t i = 0; i < kLanes; ++i) peak_bits = peaks[i] > peak_bits ? peaks[i] : peak_bits;
    if (peak_bits >= kInfinity) return false;
    const float peak = __builtin_bit_cast(float, peak_bits);
    const float divisor = peak < kSmallest ? kSmallest : peak;
    // bitsandbytes multiplies whole blocks by the reciprocal, and divides a shorter one, whose
    // scale it keeps above zero.
    const bool whole = n == kBlock4;
    const float reciprocal = 1.0f / divisor;
    *absmax++ = whole ? peak : divisor;
    for (int64_t i = 0; i < n; i += kLanes) {
      const Floats value = get(block, i, n);
      Floats scaled = whole ? value * reciprocal : value / divisor;
      scaled = scaled > 1.0f ? all(1.0f) : scaled;
      scaled = scaled < -1.0f ? all(-1.0f) : scaled;
      Ints index{};
      for (int k = 0; k < 15; ++k) index -= scaled > code.bounds[k];
      const Bytes8 bytes = packed16(__builtin_shuffle(sorted, index));
      const int64_t left = (n - i + 1) / 2;
      __builtin_memcpy(codes, &bytes, left < 8 ? left : 8);
      codes += 8;
    }
  }
  return true;
}

float quantize8(const float* x, int64_t count, const uint8_t* nearest, uint8_t* codes) {
  Floats peaks{};
  for (int64_t i = 0; i < count; i += kLanes) {
    const Floats v = get(x, i, count);
    peaks = larger(v < 0.0f ? -v : v, peaks);
  }
  float peak = 0;
  for (int64_t i = 0; i < kLanes; ++i) peak = peaks[i] > peak ? peaks[i] : peak;
  if (peak == 0) {
    for (int64_t i = 0; i < count; ++i) codes[i] = 0;
    return 0;
  }
  const float reciprocal = 1.0f / peak;  // infinite below 2.9e-39
  for (int64_t i = 0; i < count; i += kLanes) {
    Floats v = get(x, i, count) * reciprocal;
    v = v == v ? v : all(-1.0f);  // 0 * infinity: bitsandbytes' conversion gives index 0
    v = v > 1.0f ? all(1.0f) : v;
    v = v < -1.0f ? all(-1.0f) : v;
    int32_t index[kLanes];
    *reinterpret_cast<LooseInts*>(index) =
        __builtin_convertvector((v + 1.0f) * 0.5f * 65535.0f + 0.5f, Ints);
    const int64_t n = count - i < kLanes ? count - i : kLanes;
    for (int64_t k = 0; k < n; ++k) codes[i + k] = nearest[index[k]];
  }
  return peak;
}

template <class T>
void dequantize4(const uint8_t* codes, const float* values, const float* scales, int64_t begin,
                 int64_t end, T* out) {
  const int64_t first_block = begin / kBlock4;
  for (int64_t i = begin; i < end;) {
    const int64_t block = i / kBlock4;
    const int64_t stop = end < (block + 1) * kBlock4 ? end : (block + 1) * kBlock4;
    // Scaled and rounded once for the block's sixteen codes instead of for each element.
    const Words table = stored_bits(out, load16(values) * scales[block - first_block]);
    for (; i < stop && i % kLanes != 0; ++i) store_one(out++, table[code_at(codes, i)]);
    for (; i + kLanes <= stop; i += kLanes, out += kLanes)
      store_bits(out, __builtin_shuffle(table, codes16(codes + i / 2)));
    for (; i < stop; ++i) store_one(out++, table[code_at(codes, i)]);
  }
}

template <class T>
void dequantize8(const int8_t* codes, float scale, T* out, int64_t dim) {
  constexpr float kReciprocalOf127 = 7.874015718698502e-3f;
  for (int64_t i = 0; i < dim; i += kLanes) {
    Bytes16 bytes{};
    const int64_t n = dim - i < kLanes ? dim - i : kLanes;
    __builtin_memcpy(&bytes, codes + i, n);
    put(out, i, dim, __builtin_convertvector(bytes, Floats) * scale * kReciprocalOf127);
  }
}

// Every product of a row of x and a row of the matrix is summed in sixteen lanes, lane i % 16, in
// ascending order of i: whatever else is multiplied beside it.
template <class T, int kRows, int kOutputs>
inline void store_sums(const Floats (*sums)[kRows], int64_t rows, T* y, int64_t stride_y) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < kOutputs; ++o) {
      Floats v{};
      v[0] = sum(sums[o][r]);
      store_some(y + r * stride_y + o, v, 1);
    }
  }
}

template <class T, int kRows, int kOutputs>
inline void multiply4_tile(const float* x, int64_t stride_x, int64_t rows, const uint8_t* codes,
                           const float* values, const float* scales, int64_t dim, T* y,
                           int64_t stride_y) {
  const int64_t blocks = dim / kBlock4;
  Floats sums[kOutputs][kRows] = {};
  for (int64_t b = 0; b < blocks; ++b) {
    Floats table[kOutputs];
    for (int o = 0; o < kOutputs; ++o)
      table[o] = rounded_to(y, load16(values) * scales[o * blocks + b]);
    for (int64_t i = b * kBlock4; i < (b + 1) * kBlock4; i += kLanes) {
      for (int o = 0; o < kOutputs; ++o) {
        const Ints index = reinterpret_cast<Ints>(codes16(codes + (o * dim + i) / 2));
        const Floats w = __builtin_shuffle(table[o], index);
        for (int r = 0; r < kRows; ++r) sums[o][r] += w * load16(x + r * stride_x + i);
      }
    }
  }
  store_sums<T, kRows, kOutputs>(sums, rows, y, stride_y);
}

template <class T, int kRows, int kOutputs>
inline void multiply_tile(const float* x, int64_t stride_x, int64_t rows, const T* weights,
                          int64_t dim, T* y, int64_t stride_y) {
  Floats sums[kOutputs][kRows] = {};
  for (int64_t i = 0; i < dim; i += kLanes) {
    for (int o = 0; o < kOutputs; ++o) {
      const Floats w = get(weights + o * dim, i, dim);
      for (int r = 0; r < kRows; ++r) sums[o][r] += w * load16(x + r * stride_x + i);
    }
  }
  store_sums<T, kRows, kOutputs>(sums, rows, y, stride_y);
}

// Calls tile<kRows, kOutputs>(first output) over all outputs: as many sums at a time as registers
// hold.
template <int kRows, int kOutputs, class Tile>
inline void over_outputs(int64_t outputs, const Tile& tile) {
  int64_t o = 0;
  for (; o + kOutputs <= outputs; o += kOutputs) tile.template run<kRows, kOutputs>(o);
  for (; o < outputs; ++o) tile.template run<kRows, 1>(o);
}
template <class Tile>
inline void over_tiles(int64_t rows, int64_t outputs, const Tile& tile) {
  if (rows <= 1) return over_outputs<1, 4>(outputs, tile);
  if (rows <= 2) return over_outputs<2, 4>(outputs, tile);
  if (rows <= 4) return over_outputs<4, 4>(outputs, tile);
  if (rows <= 8) return over_outputs<8, 2>(outputs, tile);
  over_outputs<16, 1>(outputs, tile);
}

template <class T>
struct Tile4 {
  const float* x;
  int64_t stride_x, rows;
  const uint8_t* codes;
  const float *values, *scales;
  int64_t dim;
  T* y;
  int64_t stride_y;
  template <int kRows, int kOutputs>
  void run(int64_t o) const {
    multiply4_tile<T, kRows, kOutputs>(x, stride_x, rows, codes + o * dim / 2, values,
                                       scales + o * dim / kBlock4, dim, y + o, stride_y);
  }
};
template <class T>
struct TilePlain {
  const float* x;
  int64_t stride_x, rows;
  const T* weights;
  int64_t dim;
  T* y;
  int64_t stride_y;
  template <int kRows, int kOutputs>
  void run(int64_t o) const {
    multiply_tile<T, kRows, kOutputs>(x, stride_x, rows, weights + o * dim, dim, y + o, stride_y);
  }
};

template <class T>
void multiply4(const float* x, int64_t stride_x, int64_t rows, const uint8_t* codes,
               const float* values, const float* scales, int64_t dim, int64_t outputs, T* y,
               int64_t stride_y) {
  over_tiles(rows, outputs, Tile4<T>{x, stride_x, rows, codes, values, scales, dim, y, stride_y});
}

template <class T>
void multiply(const float* x, int64_t stride_x, int64_t rows, const T* weights, int64_t dim,
              int64_t outputs, T* y, int64_t stride_y) {
  over_tiles(rows, outputs, TilePlain<T>{x, stride_x, rows, weights, dim, y, stride_y});
}
