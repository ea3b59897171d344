// Part of kernels.inl, inside its namespace.
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

// Float16, which is multiplied as float32.
void widened_rows(const Fp16* src, int64_t stride, float* dst, int64_t dst_columns, int64_t k,
                  int64_t columns) {
  load(src, stride, dst, dst_columns, k, columns, 1.0f);
}
void widened_columns(const Fp16* src, int64_t stride, float* dst, int64_t dst_columns, int64_t k,
                     int64_t columns) {
  load_transposed(src, stride, dst, dst_columns, columns, k, 1.0f);
}
void widened_transposed(const Fp16* src, int64_t stride, float* dst, int64_t dst_stride, int64_t k,
                        int64_t m) {
  load_transposed(src, stride, dst, dst_stride, k, m, 1.0f);
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
