// Part of kernels.inl, inside its namespace. Scores and sums are in the order of attention.cpp's
// blocked forward, so that a token decoded alone has the bits that it has in its document: a score
// sums over the head's dims in order, a block's part of the output over its keys in order, and
// blocks of kBlockKeys stand on multiples of it.
constexpr int64_t kBlockKeys = 128;  // kKeys there
constexpr int64_t kPagesABlock = kBlockKeys / kLanes;

// scores[h][16 p + lane] of kPages pages.
template <class T, int kHeads, int kPages>
inline void page_scores(const float* queries, int64_t dim, const T* const* pages, float* scores) {
  Floats sums[kHeads][kPages] = {};
  for (int64_t d = 0; d < dim; ++d) {
    for (int p = 0; p < kPages; ++p) {
      const Floats keys = load16(pages[p] + d * kLanes);
      for (int h = 0; h < kHeads; ++h) sums[h][p] += queries[h * dim + d] * keys;
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int p = 0; p < kPages; ++p) store16(scores + h * kBlockKeys + p * kLanes, sums[h][p]);
  }
}

// One head's scores become weights exp(score - peak); returns exp(old peak - peak).
inline float page_softmax(float* scores, int64_t from, int64_t to, float& peak) {
  const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  Floats tops = all(peak);
  for (int64_t k = 0; k < to; k += kLanes) {
    const Ints key = lane + static_cast<int32_t>(k);
    const Floats s = load16(scores + k);
    tops = (key >= static_cast<int32_t>(from)) & (key < static_cast<int32_t>(to)) & (s > tops)
               ? s
               : tops;
  }
  const float old = peak;
  for (int64_t i = 0; i < kLanes; ++i) peak = tops[i] > peak ? tops[i] : peak;
  const Floats base = all(peak == -INFINITY ? 0.0f : peak);
  for (int64_t k = 0; k < to; k += kLanes) store16(scores + k, exp16(load16(scores + k) - base));
  return old == -INFINITY ? 0.0f : exp16(all(old) - base)[0];
}

// sums[h][i ..] (+)= the block's weighted values, kWide vectors from column i on.
template <class T, int kHeads, int kWide, bool kWhole>
inline void page_values(const float* weights, const T* const* pages, int64_t from, int64_t to,
                        int64_t dim, int64_t i, float* sums, bool add_to) {
  Floats block[kHeads][kWide] = {};
  for (int64_t key = from; key < to; ++key) {
    const T* values = pages[key / kLanes] + (kLanes + key % kLanes) * dim + i;
    for (int w = 0; w < kWide; ++w) {
      const Floats v = kWhole ? load16(values + w * kLanes) : get(values, w * kLanes, dim - i);
      for (int h = 0; h < kHeads; ++h) block[h][w] += weights[h * kBlockKeys + key] * v;
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    float* out = sums + h * dim;
    for (int w = 0; w < kWide; ++w) {
      const int64_t at = i + w * kLanes;
      put(out, at, dim, add_to ? get(out, at, dim) + block[h][w] : block[h][w]);
    }
  }
}

template <class T, int kHeads>
void attend_in_pages(const T* queries, int64_t dim, float scale, char* const* pages, int64_t offset,
                     int64_t first, int64_t length, T* out, float* scratch) {
  constexpr int kWide = kHeads == 4 ? 2 : 4;
  float* scaled = scratch;
  float* sums = scaled + kHeads * dim;
  float* scores = sums + kHeads * dim;
  float peak[kHeads], total[kHeads] = {};
  for (int h = 0; h < kHeads; ++h) peak[h] = -INFINITY;
  load(queries, dim, scaled, dim, kHeads, dim, scale);
  bool start = true;
  for (int64_t block = first / kBlockKeys * kBlockKeys; block < length; block += kBlockKeys) {
    const int64_t page = (block > first ? block : first) / kLanes;
    const int64_t end = length - block < kBlockKeys ? length : block + kBlockKeys;
    const int64_t origin = page * kLanes;
    const int64_t from = first > origin ? first - origin : 0, to = end - origin;
    const int64_t count = (to + kLanes - 1) / kLanes;
    // Pages go four at a time: the last one stands in for those beyond it.
    const T* at[kPagesABlock];
    for (int64_t p = 0; p < kPagesABlock; ++p) {
      at[p] = reinterpret_cast<const T*>(pages[page + (p < count ? p : count - 1)] + offset);
    }
    for (int64_t p = 0; p < count; p += 4)
      page_scores<T, kHeads, 4>(scaled, dim, at + p, scores + p * kLanes);
    for (int h = 0; h < kHeads; ++h) {
      float* weights = scores + h * kBlockKeys;
      const float factor = page_softmax(weights, from, to, peak[h]);
      if (!start) {
        for (int64_t i = 0; i < dim; i += kLanes)
          put(sums + h * dim, i, dim, get(sums + h * dim, i, dim) * factor);
      }
      float sum_of_weights = 0;
      for (int64_t key = from; key < to; ++key) sum_of_weights += weights[key];
      total[h] = total[h] * factor + sum_of_weights;
    }
    // What was scaled is rounded before it is added to.
    __asm__ volatile("" ::: "memory");
    for (int64_t i = 0; i < dim; i += kWide * kLanes) {
      if (i + kWide * kLanes <= dim) {
        page_values<T, kHeads, kWide, true>(scores, at, from, to, dim, i, sums, !start);
      } else {
        page_values<T, kHeads, kWide, false>(scores, at, from, to, dim, i, sums, !start);
      }
    }
    start = false;
  }
  for (int h = 0; h < kHeads; ++h) {
    const float factor = 1.0f / total[h];
    for (int64_t i = 0; i < dim; i += kLanes)
      put(out + h * dim, i, dim, get(sums + h * dim, i, dim) * factor);
  }
}

template <class T>
void attend_pages(const T* queries, int64_t heads, int64_t dim, float scale, char* const* pages,
                  int64_t offset, int64_t first, int64_t length, T* out, float* scratch) {
  const auto some = [&]<int kHeads>() {
    for (; heads >= kHeads; heads -= kHeads, queries += kHeads * dim, out += kHeads * dim) {
      attend_in_pages<T, kHeads>(queries, dim, scale, pages, offset, first, length, out, scratch);
    }
  };
  some.template operator()<4>();
  some.template operator()<2>();
  some.template operator()<1>();
}
