// Part of kernels.inl, inside its namespace.
template <class T>
void load(const T* src, int64_t src_stride, float* dst, int64_t dst_stride, int64_t rows,
          int64_t dim, float scale) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < dim; i += kLanes) {
      put(dst + r * dst_stride, i, dim, get(src + r * src_stride, i, dim) * scale);
    }
  }
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
