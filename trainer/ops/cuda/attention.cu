// Attention for what LibTorch's kernels do not take (float32, odd head sizes) and for decoding: sums
// in a fixed order and without atomics. Packed batches have a warp a query and head, a lane a key of
// 32 at a time: correct before it is fast. Decoding, which does nothing but read keys and values, has
// a kernel of its own.
#include "trainer/ops/cuda/kernels.h"
#include "trainer/ops/cuda/launch.h"

namespace temper::trainer::cuda {

namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int kDims = static_cast<int>(kLargestHead) / kWarp;  // of a head, that a lane sums

// Where a token stands: its document, and positions that count the prefix, which lies somewhere
// else.
struct Place {
  int64_t document, begin, prefix, prefix_begin;
};

__device__ Place place_of(const AttentionView& v, int64_t token) {
  int64_t low = 0, high = v.documents;  // ends[low] <= token < ends[high]
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    if (v.ends[middle] <= token)
      low = middle;
    else
      high = middle;
  }
  Place place{low, v.ends[low], 0, 0};
  if (v.prefixes && v.prefixes[low] >= 0) {
    const int64_t before = v.prefixes[low];
    place.prefix_begin = v.ends[before];
    place.prefix = v.ends[before + 1] - place.prefix_begin;
  }
  return place;
}

// Keys and values of a packed batch by position.
template <class T>
struct Packed {
  const T *keys, *values;  // of token 0, the head at hand
  int64_t stride;
  Place place;

  __device__ int64_t token(int64_t position) const {
    return position < place.prefix ? place.prefix_begin + position
                                   : place.begin + position - place.prefix;
  }
  __device__ float key(int64_t position, int64_t d) const {
    return widened(keys[token(position) * stride + d]);
  }
  __device__ float value(int64_t position, int64_t d) const {
    return widened(values[token(position) * stride + d]);
  }
};

__device__ int64_t first_key(int64_t position, int64_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// softmax(scale query K^T) V over positions first..last of one head by one warp: lane l holds dims
// l, l + 32, ... of `sums`. `query` is shared. Returns log sum exp of the scores.
template <class T>
__device__ float attend(const Packed<T>& source, const float* query, int64_t first, int64_t last,
                        int64_t dim, float scale, float* sums) {
  float peak = -INFINITY, total = 0;
  for (int j = 0; j < kDims; ++j) sums[j] = 0;
  for (int64_t block = first; block <= last; block += kWarp) {
    const int64_t position = block + lane();
    float score = -INFINITY;
    if (position <= last) {
      score = 0;
      for (int64_t d = 0; d < dim; ++d) score = fmaf(query[d], source.key(position, d), score);
      score *= scale;
    }
    const float larger = fmaxf(peak, warp_max(score));
    const float p = position <= last ? expf(score - larger) : 0.0f;
    const float rescale = expf(peak - larger);
    total = total * rescale + warp_sum(p);
    peak = larger;
    for (int j = 0; j < kDims; ++j) sums[j] *= rescale;
    const int64_t keys = last - block + 1 < kWarp ? last - block + 1 : kWarp;
    for (int k = 0; k < keys; ++k) {
      const float weight = __shfl_sync(kAllLanes, p, k);
      for (int j = 0; j < kDims; ++j) {
        const int64_t d = lane() + j * kWarp;
        if (d < dim) sums[j] = fmaf(weight, source.value(block + k, d), sums[j]);
      }
    }
  }
  for (int j = 0; j < kDims; ++j) sums[j] /= total;
  return peak + logf(total);
}

template <class T>
__device__ void store_head(const float* sums, int64_t dim, T* out) {
  for (int j = 0; j < kDims; ++j) {
    const int64_t d = lane() + j * kWarp;
    if (d < dim) rounded_store(out + d, sums[j]);
  }
}

// A head of T to shared floats, by one warp.
template <class T>
__device__ void load_head(const T* from, int64_t dim, float* to) {
  for (int64_t d = lane(); d < dim; d += kWarp) to[d] = widened(from[d]);
  __syncwarp();
}

template <class T>
__device__ Packed<T> packed_of(const AttentionView& v, int64_t kv_head, const Place& place) {
  const T* qkv = static_cast<const T*>(v.qkv);
  return {qkv + (v.heads + kv_head) * v.dim, qkv + (v.heads + v.kv_heads + kv_head) * v.dim,
          v.stride, place};
}

template <class T>
__global__ void attention_kernel(AttentionView v) {
  __shared__ float queries[kWarps][kLargestHead];
  const int64_t task = thread_number() / kWarp;
  if (task >= v.tokens * v.heads) return;
  const int64_t token = task / v.heads, head = task % v.heads;
  float* query = queries[threadIdx.x / kWarp];
  load_head(static_cast<const T*>(v.qkv) + token * v.stride + head * v.dim, v.dim, query);
  const Place place = place_of(v, token);
  const int64_t position = token - place.begin + place.prefix;
  float sums[kDims];
  const float lse = attend(packed_of<T>(v, head / (v.heads / v.kv_heads), place), query,
                           first_key(position, v.window), position, v.dim, v.scale, sums);
  store_head(sums, v.dim, static_cast<T*>(v.out) + (token * v.heads + head) * v.dim);
  if (lane() == 0) v.lse[head * v.tokens + token] = lse;
}

// Gradient of the queries, and delta = dout . out of each, which the keys' gradients need.
template <class T>
__global__ void query_gradient_kernel(AttentionBackwardView b) {
  __shared__ float queries[kWarps][kLargestHead], douts[kWarps][kLargestHead];
  const AttentionView& v = b.forward;
  const int64_t task = thread_number() / kWarp;
  if (task >= v.tokens * v.heads) return;
  const int64_t token = task / v.heads, head = task % v.heads;
  float *query = queries[threadIdx.x / kWarp], *dout = douts[threadIdx.x / kWarp];
  const int64_t result = (token * v.heads + head) * v.dim;
  load_head(static_cast<const T*>(v.qkv) + token * v.stride + head * v.dim, v.dim, query);
  load_head(static_cast<const T*>(b.dout) + result, v.dim, dout);
  float delta = 0;
  for (int64_t d = lane(); d < v.dim; d += kWarp)
    delta = fmaf(dout[d], widened(static_cast<const T*>(v.out)[result + d]), delta);
  delta = warp_sum(delta);
  if (lane() == 0) b.delta[head * v.tokens + token] = delta;
  const Place place = place_of(v, token);
  const auto source = packed_of<T>(v, head / (v.heads / v.kv_heads), place);
  const int64_t last = token - place.begin + place.prefix;
  const float lse = v.lse[head * v.tokens + token];
  float sums[kDims] = {};
  for (int64_t block = first_key(last, v.window); block <= last; block += kWarp) {
    const int64_t position = block + lane();
    float dscore = 0;
    if (position <= last) {
      float score = 0, dp = 0;
      for (int64_t d = 0; d < v.dim; ++d) {
        score = fmaf(query[d], source.key(position, d), score);
        dp = fmaf(dout[d], source.value(position, d), dp);
      }
      dscore = expf(score * v.scale - lse) * (dp - delta) * v.scale;
    }
    const int64_t keys = last - block + 1 < kWarp ? last - block + 1 : kWarp;
    for (int k = 0; k < keys; ++k) {
      const float weight = __shfl_sync(kAllLanes, dscore, k);
      for (int j = 0; j < kDims; ++j) {
        const int64_t d = lane() + j * kWarp;
        if (d < v.dim) sums[j] = fmaf(weight, source.key(block + k, d), sums[j]);
      }
    }
  }
  store_head(sums, v.dim, static_cast<T*>(b.dqkv) + token * v.stride + head * v.dim);
}

// Gradients of one key and its value: a lane a query of 32 at a time, document by document of those
// that see it.
template <class T>
__global__ void key_gradient_kernel(AttentionBackwardView b) {
  __shared__ float keys[kWarps][kLargestHead], values[kWarps][kLargestHead];
  const AttentionView& v = b.forward;
  const int64_t task = thread_number() / kWarp;
  if (task >= v.tokens * v.kv_heads) return;
  const int64_t token = task / v.kv_heads, kv_head = task % v.kv_heads;
  const int64_t group = v.heads / v.kv_heads;
  float *key = keys[threadIdx.x / kWarp], *value = values[threadIdx.x / kWarp];
  const T* qkv = static_cast<const T*>(v.qkv);
  const int64_t key_at = token * v.stride + (v.heads + kv_head) * v.dim;
  const int64_t value_at = key_at + v.kv_heads * v.dim;
  load_head(qkv + key_at, v.dim, key);
  load_head(qkv + value_at, v.dim, value);
  const Place place = place_of(v, token);
  const int64_t position = token - place.begin + place.prefix;
  float dkey[kDims] = {}, dvalue[kDims] = {};
  for (int64_t document = place.document; document < v.documents; ++document) {
    const bool own = document == place.document;
    if (!own && !v.prefixes) break;
    if (!own && v.prefixes[document] != place.document) continue;
    const int64_t begin = v.ends[document], end = v.ends[document + 1];
    // Position of the document's token `begin`, and of the first that sees the key.
    const int64_t before = own ? place.prefix : v.ends[place.document + 1] - place.begin;
    const int64_t first = own ? token : begin;
    int64_t last = end - 1;
    if (v.window > 0 && position + v.window - 1 - before + begin < last)
      last = position + v.window - 1 - before + begin;
    for (int64_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
      for (int64_t block = first; block <= last; block += kWarp) {
        const int64_t query = block + lane();
        float p = 0, dscore = 0;
        if (query <= last) {
          const T* q = qkv + query * v.stride + h * v.dim;
          const T* dout = static_cast<const T*>(b.dout) + (query * v.heads + h) * v.dim;
          float score = 0, dp = 0;
          for (int64_t d = 0; d < v.dim; ++d) {
            score = fmaf(widened(q[d]), key[d], score);
            dp = fmaf(widened(dout[d]), value[d], dp);
          }
          p = expf(score * v.scale - v.lse[h * v.tokens + query]);
          dscore = p * (dp - b.delta[h * v.tokens + query]) * v.scale;
        }
        const int64_t count = last - block + 1 < kWarp ? last - block + 1 : kWarp;
        for (int k = 0; k < count; ++k) {
          const float of_key = __shfl_sync(kAllLanes, dscore, k);
          const float of_value = __shfl_sync(kAllLanes, p, k);
          const T* q = qkv + (block + k) * v.stride + h * v.dim;
          const T* dout = static_cast<const T*>(b.dout) + ((block + k) * v.heads + h) * v.dim;
          for (int j = 0; j < kDims; ++j) {
            const int64_t d = lane() + j * kWarp;
            if (d >= v.dim) continue;
            dkey[j] = fmaf(of_key, widened(q[d]), dkey[j]);
            dvalue[j] = fmaf(of_value, widened(dout[d]), dvalue[j]);
          }
        }
      }
    }
  }
  store_head(dkey, v.dim, static_cast<T*>(b.dqkv) + key_at);
  store_head(dvalue, v.dim, static_cast<T*>(b.dqkv) + value_at);
}

// A block a token.
template <class T>
__global__ void store_in_pages_kernel(PagedView v) {
  const int64_t token = blockIdx.x, position = v.positions[token];
  const int64_t values = v.kv_heads * v.dim, slot = position % kTokensAPage;
  const T* keys = static_cast<const T*>(v.qkv) + (token + 1) * v.stride - 2 * values;
  char* page = v.pages[v.first_page[token] + position / kTokensAPage] + v.offset;
  for (int64_t i = threadIdx.x; i < values; i += kThreads) {
    const int64_t head = i / v.dim, d = i % v.dim;
    T* out = reinterpret_cast<T*>(page + head * v.head_bytes);
    out[d * kTokensAPage + slot] = keys[i];
    out[(kTokensAPage + slot) * v.dim + d] = keys[values + i];
  }
}

constexpr int kPageTokens = static_cast<int>(kTokensAPage);
// Packs of a page's keys, and as many of its values, that a lane has asked for before it looks at
// one: a page's all, unless heads are so large that these would not fit into registers.
template <int kLanes>
constexpr int kAhead = kLanes < kWarp ? kLanes / 2 : 4;

// query K^T of a page's keys [E, 16] by one warp: as many lanes as it takes read a dimension's, the
// others the next ones'. A lane gets the score of token_of_lane(); two have the same.
template <int kWide, int kPacks, class T>
__device__ float scores_of_page(const T* keys, const float* query, int dim) {
  constexpr int kLanes = kPageTokens / kWide, kStep = kWarp / kLanes;
  keys += lane() % kLanes * kWide;
  float scores[kWide] = {};
  for (int first = lane() / kLanes; first < dim; first += kPacks * kStep) {
    Pack<T, kWide> packs[kPacks];
    for (int j = 0; j < kPacks; ++j) {
      const int d = first + j * kStep < dim ? first + j * kStep : first;
      packs[j] = load_pack<kWide>(keys + d * kPageTokens);
    }
    for (int j = 0; j < kPacks; ++j) {
      const float q = first + j * kStep < dim ? query[first + j * kStep] : 0.0f;
      for (int k = 0; k < kWide; ++k) scores[k] = fmaf(q, widened(packs[j].at[k]), scores[k]);
    }
  }
  return scattered_sum<kWide, kLanes>(scores);
}
template <int kWide>
__device__ int token_of_lane() {
  return lane() % (kPageTokens / kWide) * kWide + lane() / (kWarp / kWide);
}
template <int kWide>
__device__ int lane_of_token(int token) {
  return token / kWide + token % kWide * (kWarp / kWide);
}

struct Weights {
  float peak, total;  // of exp(score - peak)
};

// One warp's share of a head: every `step`th page from first_page on. `head` is shared, has the
// query and gets the sums of exp(score - peak) V, of the dimensions from `column` on that kLanes
// packs hold. So many lanes read what a page's values [16, E] have of a token, the others the next
// tokens'.
template <class T, int kWide, int kLanes>
__device__ Weights attend_in_pages(const PagedView& v, char* const* pages, int64_t offset,
                                   int first, int last, int first_page, int step, int column,
                                   float* head) {
  constexpr int kRows = kWarp / kLanes;  // tokens at a time
  constexpr int kPacks = kAhead<kLanes>;
  const int dim = static_cast<int>(v.dim), row = lane() / kLanes;
  const int d = column + lane() % kLanes * kWide;
  Weights weights{-INFINITY, 0};
  float sums[kWide] = {};
  for (int page = first_page; page * kPageTokens <= last; page += step) {
    const T* keys = reinterpret_cast<const T*>(pages[page] + offset);
    const T* values = keys + kPageTokens * dim + (d < dim ? d : 0);
    const int begin = first - page * kPageTokens, end = last - page * kPageTokens;
    const auto sees = [&](int token) { return begin <= token && token <= end; };
    Pack<T, kWide> packs[kPacks];
    // What the query does not see may be anything, and 0 times it no 0: in its place, something
    // that it sees.
    const auto load = [&](int token) {
      for (int j = 0; j < kPacks; ++j, token += kRows) {
        const int seen = token < begin ? begin : token > end ? end : token;
        packs[j] = load_pack<kWide>(values + seen * dim);
      }
    };
    load(row);  // before it is known what they weigh
    const float score = scores_of_page<kWide, kPacks>(keys, head, dim) * v.scale;
    const float seen = sees(token_of_lane<kWide>()) ? score : -INFINITY;
    const float larger = fmaxf(weights.peak, warp_max(seen));
    const float rescale = expf(weights.peak - larger), weight = expf(seen - larger);
    weights.peak = larger;
    weights.total = weights.total * rescale + weight;
    for (int k = 0; k < kWide; ++k) sums[k] *= rescale;
    for (int next = 0; next < kPageTokens; next += kPacks * kRows) {
      if (next > 0) load(next + row);
      for (int j = 0; j < kPacks; ++j) {
        const int from = lane_of_token<kWide>(next + row + j * kRows);
        const float of_token = __shfl_sync(kAllLanes, weight, from);
        for (int k = 0; k < kWide; ++k) sums[k] = fmaf(of_token, widened(packs[j].at[k]), sums[k]);
      }
    }
  }
  weights.total = warp_sum(weights.total) / 2;
  __syncwarp();  // all have read the query
  for (int k = 0; k < kWide; ++k) {
    for (int apart = kLanes; apart < kWarp; apart *= 2)
      sums[k] += __shfl_xor_sync(kAllLanes, sums[k], apart);
    if (row == 0 && d < dim) head[d + k] = sums[k];
  }
  return weights;
}

// `warps` warps of a block (1, 2, 4 or 8) for kLanes packs of a query and head. Of a head that is
// larger each column of so many finds the same weights again.
template <class T, int kWide, int kLanes>
__global__ void __launch_bounds__(kThreads, 2) attention_in_pages_kernel(PagedView v, int warps) {
  __shared__ float heads[kWarps][kLargestHead];
  __shared__ Weights weights[kWarps];
  constexpr int kColumn = kLanes * kWide;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int of_head = warp % warps, first_of_head = warp - of_head;
  const int64_t columns = (v.dim + kColumn - 1) / kColumn;
  const int64_t task = thread_number() / kWarp / warps;
  const int64_t result = task / columns, token = result / v.heads, head = result % v.heads;
  const int column = static_cast<int>(task % columns) * kColumn;
  if (token < v.tokens) {
    load_head(static_cast<const T*>(v.qkv) + token * v.stride + head * v.dim, v.dim, heads[warp]);
    const int64_t last = v.positions[token], first = first_key(last, v.window);
    const int64_t kv_head = head / (v.heads / v.kv_heads);
    const Weights own = attend_in_pages<T, kWide, kLanes>(
        v, v.pages + v.first_page[token], v.offset + kv_head * v.head_bytes,
        static_cast<int>(first), static_cast<int>(last),
        static_cast<int>(first / kTokensAPage) + of_head, warps, column, heads[warp]);
    if (lane() == 0) weights[warp] = own;
  }
  __syncthreads();
  if (token >= v.tokens) return;
  float peak = -INFINITY, total = 0;
  for (int w = first_of_head; w < first_of_head + warps; ++w) peak = fmaxf(peak, weights[w].peak);
  for (int w = first_of_head; w < first_of_head + warps; ++w)
    total = fmaf(expf(weights[w].peak - peak), weights[w].total, total);
  T* out = static_cast<T*>(v.out) + result * v.dim;
  for (int i = of_head * kWarp + lane(); i < kColumn && column + i < v.dim; i += warps * kWarp) {
    float sum = 0;
    for (int w = first_of_head; w < first_of_head + warps; ++w)
      sum = fmaf(expf(weights[w].peak - peak), heads[w][column + i], sum);
    rounded_store(out + column + i, sum / total);
  }
}

}  // namespace

int attention(Element type, const AttentionView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    return launch(attention_kernel<decltype(element)>, blocks_of(v.tokens * v.heads * kWarp),
                  stream, v);
  });
}

int attention_backward(Element type, const AttentionBackwardView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const AttentionView& f = v.forward;
    const int error =
        launch(query_gradient_kernel<T>, blocks_of(f.tokens * f.heads * kWarp), stream, v);
    return error != 0 ? error
                      : launch(key_gradient_kernel<T>, blocks_of(f.tokens * f.kv_heads * kWarp),
                               stream, v);
  });
}

int store_in_pages(Element type, const PagedView& v, CUstream_st* stream) {
  return with_element(type, [&](auto element) {
    return launch(store_in_pages_kernel<decltype(element)>, v.tokens, stream, v);
  });
}

int attention_in_pages(Element type, const PagedView& v, CUstream_st* stream) {
  // A head has as many warps as leave a block to those that read the same keys and values, so that
  // they come once.
  int warps = kWarps;
  while (warps > 1 && warps * v.heads > kWarps * v.kv_heads) warps /= 2;
  return with_element(type, [&](auto element) {
    using T = decltype(element);
    const auto start = [&](auto* kernel, int64_t column) {
      const int64_t columns = (v.dim + column - 1) / column;
      return launch(kernel, blocks_of(v.tokens * v.heads * columns * warps * kWarp), stream, v,
                    warps);
    };
    // Memory of pages is aligned; what is in them begins at multiples of `dim` elements.
    return with_width<T>(true, v.dim, [&](auto width) {
      constexpr int kWide = decltype(width)::value;
      if constexpr (kWide > 1) {
        if (v.dim <= 8 * kWide) return start(attention_in_pages_kernel<T, kWide, 8>, 8 * kWide);
        if (v.dim <= 16 * kWide) return start(attention_in_pages_kernel<T, kWide, 16>, 16 * kWide);
      }
      return start(attention_in_pages_kernel<T, kWide, kWarp>, kWarp * kWide);
    });
  });
}

}  // namespace temper::trainer::cuda
