// Attention for what LibTorch's kernels do not take (float32, odd head sizes) and for decoding:
// a warp a query and head, a lane a key of 32 at a time, sums in a fixed order and without atomics.
// Correct before it is fast.
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

// The same of a cache in pages (ops/paged_attention.h).
template <class T>
struct Paged {
  char* const* pages;
  int64_t offset, dim;

  __device__ const T* page(int64_t position) const {
    return reinterpret_cast<const T*>(pages[position / kTokensAPage] + offset);
  }
  __device__ float key(int64_t position, int64_t d) const {
    return widened(page(position)[d * kTokensAPage + position % kTokensAPage]);
  }
  __device__ float value(int64_t position, int64_t d) const {
    return widened(page(position)[(kTokensAPage + position % kTokensAPage) * dim + d]);
  }
};

__device__ int64_t first_key(int64_t position, int64_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

// softmax(scale query K^T) V over positions first..last of one head by one warp: lane l holds dims
// l, l + 32, ... of `sums`. `query` is shared. Returns log sum exp of the scores.
template <class Source>
__device__ float attend(const Source& source, const float* query, int64_t first, int64_t last,
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

template <class T>
__global__ void attention_in_pages_kernel(PagedView v) {
  __shared__ float queries[kWarps][kLargestHead];
  const int64_t task = thread_number() / kWarp;
  if (task >= v.tokens * v.heads) return;
  const int64_t token = task / v.heads, head = task % v.heads;
  float* query = queries[threadIdx.x / kWarp];
  load_head(static_cast<const T*>(v.qkv) + token * v.stride + head * v.dim, v.dim, query);
  const int64_t position = v.positions[token];
  const int64_t kv_head = head / (v.heads / v.kv_heads);
  const Paged<T> source{v.pages + v.first_page[token], v.offset + kv_head * v.head_bytes, v.dim};
  float sums[kDims];
  attend(source, query, first_key(position, v.window), position, v.dim, v.scale, sums);
  store_head(sums, v.dim, static_cast<T*>(v.out) + (token * v.heads + head) * v.dim);
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
  return with_element(type, [&](auto element) {
    return launch(attention_in_pages_kernel<decltype(element)>,
                  blocks_of(v.tokens * v.heads * kWarp), stream, v);
  });
}

}  // namespace temper::trainer::cuda
