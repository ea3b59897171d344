#include "trainer/ops/attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "trainer/ops/device.h"
#include "trainer/ops/device_attention.h"
#include "trainer/ops/dispatch.h"
#include "trainer/ops/gemm.h"

// Scores are computed transposed, keys down the rows and queries along the columns: then softmax
// runs lane by lane, and no product of forward or backward needs a transposed block of scores:
//   S^T = K Q^T     O^T = V^T P^T     dP^T = V dO^T     dV += P^T dO     dK += dS^T Q     dQ^T +=
//   K^T dS^T
// The columns of a block are the queries of all heads that share a key/value head, (head, query) in
// that order.
namespace temper::trainer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kColumns = 64;  // queries x heads a block, about
constexpr int64_t kKeys = 128;    // keys a block
constexpr int64_t kQueriesATask =
    512;  // forward: more tasks than documents x heads when documents are long

int64_t round_up(int64_t n, int64_t to = 16) { return (n + to - 1) / to * to; }

// One key/value head of one document, and a run of its queries. Rows are `stride` elements apart.
// Positions count the tokens of the prefix, `prefix` of them, which lie somewhere else.
template <class T>
struct Task {
  const T* queries;  // of the first query in the run, first head of the group
  const T* keys;     // of the document's own first token, at position `prefix`
  const T* values;
  int64_t query_stride, key_stride;
  int64_t begin, end;  // queries, as positions
  int64_t prefix = 0;
  const T* prefix_keys = nullptr;  // of position 0
  const T* prefix_values = nullptr;
};

// load(first key, its value, its position, count) for the runs of positions [from, to) that
// lie together.
template <class T, class F>
void for_each_run(const Task<T>& task, int64_t from, int64_t to, F&& load) {
  if (from < task.prefix) {
    load(task.prefix_keys + from * task.key_stride, task.prefix_values + from * task.key_stride,
         from, std::min(to, task.prefix) - from);
  }
  const int64_t own = std::max(from, task.prefix);
  if (own < to) {
    load(task.keys + (own - task.prefix) * task.key_stride,
         task.values + (own - task.prefix) * task.key_stride, own, to - own);
  }
}

struct Geometry {
  int64_t group, dim, window;
  float scale;
  int64_t queries_a_block() const { return std::max<int64_t>(1, kColumns / group); }
  int64_t first_key(int64_t query) const {
    return window > 0 ? std::max<int64_t>(0, query - window + 1) : 0;
  }
};

Geometry geometry_of(const AttentionHeads& heads) {
  return {.group = heads.heads / heads.kv_heads,
          .dim = heads.head_dim,
          .window = heads.window,
          .scale = 1.0f / std::sqrt(static_cast<float>(heads.head_dim))};
}

// Scratch of a thread, kept between calls.
class Scratch {
 public:
  float* floats(size_t slot, int64_t count, bool zero = false) {
    std::vector<float>& buffer = buffers_[slot];
    if (static_cast<int64_t>(buffer.size()) < count) buffer.resize(count);
    if (zero) std::fill_n(buffer.data(), count, 0.0f);
    return buffer.data();
  }
  std::vector<int32_t> first, last;

 private:
  std::vector<float> buffers_[16];
};

Scratch& scratch() {
  thread_local Scratch mine;
  return mine;
}

// Which keys of the run [from, to), relative to its start, each column of a block of queries
// [begin, end) may see; padding columns see none.
void visible_keys(const Geometry& g, int64_t begin, int64_t end, int64_t from, int64_t to,
                  int64_t columns, Scratch& s) {
  s.first.assign(columns, 0);
  s.last.assign(columns, 0);
  for (int64_t h = 0; h < g.group; ++h) {
    for (int64_t q = begin; q < end; ++q) {
      const int64_t column = h * (end - begin) + q - begin;
      s.first[column] = static_cast<int32_t>(g.first_key(q) - from);
      s.last[column] = static_cast<int32_t>(std::min(q + 1, to) - from);
    }
  }
}

// A block of queries' rows [group][count] of `src` as columns [dim, columns].
template <class T>
void load_columns(const Geometry& g, const T* src, int64_t stride, int64_t count, int64_t columns,
                  float scale, float* dst) {
  if (g.group * count < columns) std::fill_n(dst, g.dim * columns, 0.0f);
  for (int64_t h = 0; h < g.group; ++h) {
    cpu::row_kernels<T>().load_transposed(src + h * g.dim, stride, dst + h * count, columns, count,
                                          g.dim, scale);
  }
}

template <class T>
void load_rows(const Geometry& g, const T* src, int64_t stride, int64_t count, int64_t rows,
               float scale, float* dst) {
  for (int64_t h = 0; h < g.group; ++h) {
    cpu::row_kernels<T>().load(src + h * g.dim, stride, dst + h * count * g.dim, g.dim, count,
                               g.dim, scale);
  }
  std::fill_n(dst + g.group * count * g.dim, (rows - g.group * count) * g.dim, 0.0f);
}

// out: like queries. lse: where head 0 of the group has its value for query `begin`; heads are
// `lse_stride` apart; may be null.
template <class T>
void attend(const Geometry& g, const Task<T>& task, T* out, int64_t out_stride, float* lse,
            int64_t lse_stride) {
  const auto& attention = cpu::kernels().attention;
  Scratch& s = scratch();
  const int64_t origin = g.first_key(task.begin);
  const int64_t keys = round_up(task.end - origin);
  float* key_rows = s.floats(0, keys * g.dim);
  float* value_columns = s.floats(1, g.dim * keys);
  const int64_t real = task.end - origin;
  std::fill_n(key_rows + real * g.dim, (keys - real) * g.dim, 0.0f);
  if (real < keys) std::fill_n(value_columns, g.dim * keys, 0.0f);
  for_each_run(task, origin, task.end, [&](const T* k, const T* v, int64_t position, int64_t count) {
    const int64_t row = position - origin;
    cpu::row_kernels<T>().load(k, task.key_stride, key_rows + row * g.dim, g.dim, count, g.dim, 1.0f);
    cpu::row_kernels<T>().load_transposed(v, task.key_stride, value_columns + row, keys, count, g.dim,
                                          1.0f);
  });

  for (int64_t begin = task.begin; begin < task.end; begin += g.queries_a_block()) {
    const int64_t end = std::min(task.end, begin + g.queries_a_block());
    const int64_t count = end - begin;
    const int64_t columns = round_up(g.group * count);
    float* queries = s.floats(2, g.dim * columns);
    load_columns(g, task.queries + (begin - task.begin) * task.query_stride, task.query_stride,
                 count, columns, g.scale, queries);
    float* sums = s.floats(3, g.dim * columns);
    float* scores = s.floats(4, kKeys * columns);
    float* peak = s.floats(5, columns);
    float* total = s.floats(6, columns, true);
    float* rescale = s.floats(7, columns);
    std::fill_n(peak, columns, -std::numeric_limits<float>::infinity());
    // Blocks of keys stand on multiples of kKeys of the document, so that a query's sums do not
    // depend on its run.
    int64_t block = g.first_key(begin) / kKeys * kKeys;
    bool first = true;
    for (; block < end; block += kKeys) {
      const int64_t from = std::max(block, origin);
      const int64_t rows = round_up(std::min(block + kKeys, end) - from);
      visible_keys(g, begin, end, from, block + kKeys, columns, s);
      block_gemm(rows, columns, g.dim, key_rows + (from - origin) * g.dim, g.dim, queries, columns,
                 scores, columns, false);
      attention.softmax(scores, rows, columns, columns, s.first.data(), s.last.data(), peak, total,
                        rescale);
      if (!first) attention.scale_columns(sums, g.dim, columns, columns, rescale);
      block_gemm(g.dim, columns, rows, value_columns + from - origin, keys, scores, columns, sums,
                 columns, !first);
      first = false;
    }
    for (int64_t c = 0; c < columns; ++c) rescale[c] = 1.0f / total[c];
    attention.scale_columns(sums, g.dim, columns, columns, rescale);
    for (int64_t h = 0; h < g.group; ++h) {
      cpu::row_kernels<T>().store_transposed(sums + h * count, columns,
                                             out + (begin - task.begin) * out_stride + h * g.dim,
                                             out_stride, count, g.dim, 1.0f);
      for (int64_t q = 0; q < count && lse != nullptr; ++q) {
        lse[h * lse_stride + begin - task.begin + q] =
            peak[h * count + q] + std::log(total[h * count + q]);
      }
    }
  }
}

template <class T>
struct Backward {
  const T *out, *dout;  // as queries, `out_stride` apart
  int64_t out_stride;
  const float* lse;
  int64_t lse_stride;
  T* dqueries;  // strides as queries
  T *dkeys, *dvalues;  // of the document's own first token; strides as keys
};

// Gradients of keys and values by position, the prefix's included: [task.end, dim], in scratch.
struct KeyGradients {
  float *keys, *values;
};

// All of a document's own queries for one key/value head.
template <class T>
KeyGradients attend_backward(const Geometry& g, const Task<T>& task, const Backward<T>& b) {
  const auto& attention = cpu::kernels().attention;
  const auto& row = cpu::row_kernels<T>();
  Scratch& s = scratch();
  const int64_t real = task.end;
  const int64_t keys = round_up(real);
  float* key_rows = s.floats(0, keys * g.dim);
  float* key_columns = s.floats(1, g.dim * keys);
  float* value_rows = s.floats(2, keys * g.dim);
  float* dkeys = s.floats(3, keys * g.dim, true);
  float* dvalues = s.floats(4, keys * g.dim, true);
  std::fill_n(key_rows + real * g.dim, (keys - real) * g.dim, 0.0f);
  std::fill_n(value_rows + real * g.dim, (keys - real) * g.dim, 0.0f);
  if (real < keys) std::fill_n(key_columns, g.dim * keys, 0.0f);
  for_each_run(task, 0, real, [&](const T* k, const T* v, int64_t position, int64_t count) {
    row.load(k, task.key_stride, key_rows + position * g.dim, g.dim, count, g.dim, 1.0f);
    row.load(v, task.key_stride, value_rows + position * g.dim, g.dim, count, g.dim, 1.0f);
    row.load_transposed(k, task.key_stride, key_columns + position, keys, count, g.dim, 1.0f);
  });

  for (int64_t begin = task.begin; begin < task.end; begin += g.queries_a_block()) {
    const int64_t end = std::min(task.end, begin + g.queries_a_block());
    const int64_t count = end - begin;
    const int64_t columns = round_up(g.group * count);
    const int64_t own = begin - task.begin;
    const T* queries = task.queries + own * task.query_stride;
    const T* dout = b.dout + own * b.out_stride;
    float* query_columns = s.floats(5, g.dim * columns);
    float* query_rows = s.floats(6, columns * g.dim);
    float* dout_columns = s.floats(7, g.dim * columns);
    float* dout_rows = s.floats(8, columns * g.dim);
    load_columns(g, queries, task.query_stride, count, columns, g.scale, query_columns);
    load_rows(g, queries, task.query_stride, count, columns, g.scale, query_rows);
    load_columns(g, dout, b.out_stride, count, columns, 1.0f, dout_columns);
    load_rows(g, dout, b.out_stride, count, columns, 1.0f, dout_rows);
    float* lse = s.floats(9, columns, true);
    float* delta = s.floats(10, columns, true);
    for (int64_t h = 0; h < g.group; ++h) {
      std::copy_n(b.lse + h * b.lse_stride + own, count, lse + h * count);
      row.row_dots(dout + h * g.dim, b.out_stride, b.out + own * b.out_stride + h * g.dim,
                   b.out_stride, delta + h * count, count, g.dim);
    }
    float* dqueries = s.floats(11, g.dim * columns);
    float* scores = s.floats(12, kKeys * columns);
    float* dscores = s.floats(13, kKeys * columns);
    bool first = true;
    for (int64_t block = g.first_key(begin) / kKeys * kKeys; block < end; block += kKeys) {
      const int64_t rows = round_up(std::min(block + kKeys, end) - block);
      visible_keys(g, begin, end, block, block + kKeys, columns, s);
      block_gemm(rows, columns, g.dim, key_rows + block * g.dim, g.dim, query_columns, columns,
                 scores, columns, false);
      block_gemm(rows, columns, g.dim, value_rows + block * g.dim, g.dim, dout_columns, columns,
                 dscores, columns, false);
      attention.softmax_backward(scores, dscores, rows, columns, columns, s.first.data(),
                                 s.last.data(), lse, delta);
      block_gemm(rows, g.dim, columns, scores, columns, dout_rows, g.dim, dvalues + block * g.dim,
                 g.dim, true);
      block_gemm(rows, g.dim, columns, dscores, columns, query_rows, g.dim, dkeys + block * g.dim,
                 g.dim, true);
      block_gemm(g.dim, columns, rows, key_columns + block, keys, dscores, columns, dqueries,
                 columns, !first);
      first = false;
    }
    for (int64_t h = 0; h < g.group; ++h) {
      row.store_transposed(dqueries + h * count, columns,
                           b.dqueries + own * task.query_stride + h * g.dim, task.query_stride,
                           count, g.dim, g.scale);
    }
  }
  return {dkeys, dvalues};
}

// Tasks are of very different sizes (documents are): threads take the next one when they are done
// with one.
template <class F>
void run_tasks(int64_t count, F&& f) {
  std::atomic<int64_t> next = 0;
  at::parallel_for(0, std::min<int64_t>(count, at::get_num_threads()), 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < count; i = next++) f(i);
  });
}

// The documents of a batch on the host.
class Documents {
 public:
  Documents(const at::Tensor& ends, const at::Tensor& prefixes)
      : ends_(ends.const_data_ptr<int32_t>()),
        prefixes_(prefixes.defined() ? prefixes.const_data_ptr<int32_t>() : nullptr),
        count_(ends.numel() - 1) {}
  int64_t count() const { return count_; }
  int64_t first(int64_t document) const { return ends_[document]; }
  int64_t length(int64_t document) const { return ends_[document + 1] - ends_[document]; }
  int64_t prefix(int64_t document) const { return prefixes_ ? prefixes_[document] : -1; }
  int64_t prefix_length(int64_t document) const {
    return prefix(document) < 0 ? 0 : length(prefix(document));
  }

 private:
  const int32_t *ends_, *prefixes_;
  int64_t count_;
};

struct Piece {
  int64_t document, kv_head, begin, end;  // queries, as positions
};

std::vector<Piece> pieces_of(const Documents& documents, int64_t kv_heads) {
  std::vector<Piece> pieces;
  for (int64_t d = 0; d < documents.count(); ++d) {
    const int64_t from = documents.prefix_length(d), to = from + documents.length(d);
    for (int64_t begin = from; begin < to; begin += kQueriesATask) {
      for (int64_t h = 0; h < kv_heads; ++h)
        pieces.push_back({d, h, begin, std::min(to, begin + kQueriesATask)});
    }
  }
  return pieces;
}

// A document that is nobody's branch, and those whose prefix it is: what shares gradients of keys.
struct Family {
  std::vector<int64_t> documents;  // the root first
};

std::vector<Family> families_of(const Documents& documents) {
  std::vector<Family> families;
  std::vector<int64_t> family_of(documents.count());
  for (int64_t d = 0; d < documents.count(); ++d) {
    if (documents.prefix(d) >= 0) continue;
    family_of[d] = static_cast<int64_t>(families.size());
    families.push_back({{d}});
  }
  for (int64_t d = 0; d < documents.count(); ++d) {
    if (documents.prefix(d) >= 0) families[family_of[documents.prefix(d)]].documents.push_back(d);
  }
  return families;
}

// One key/value head of qkv [N, (heads + 2 kv_heads) dim].
template <class T>
struct Head {
  const Geometry& g;
  const Documents& documents;
  int64_t heads, kv_heads, kv_head, stride;

  int64_t query(int64_t token) const { return token * stride + kv_head * g.group * g.dim; }
  int64_t key(int64_t token) const { return token * stride + (heads + kv_head) * g.dim; }
  int64_t value(int64_t token) const { return key(token) + kv_heads * g.dim; }
  Task<T> task(const T* qkv, int64_t document, int64_t begin, int64_t end) const {
    const int64_t first = documents.first(document), before = documents.prefix_length(document);
    Task<T> task{.queries = qkv + query(first + begin - before),
                 .keys = qkv + key(first),
                 .values = qkv + value(first),
                 .query_stride = stride,
                 .key_stride = stride,
                 .begin = begin,
                 .end = end};
    if (before > 0) {
      const int64_t origin = documents.first(documents.prefix(document));
      task.prefix = before;
      task.prefix_keys = qkv + key(origin);
      task.prefix_values = qkv + value(origin);
    }
    return task;
  }
};

// Backward of a family for one key/value head: what the branches want of the prefix is summed in
// their order.
template <class T, class F>
void family_backward(const Geometry& g, const Documents& documents, const Family& family,
                     int64_t key_stride, F&& backward_of) {
  const auto& row = cpu::row_kernels<T>();
  Scratch& s = scratch();
  const int64_t root = documents.length(family.documents.front()) * g.dim;
  float* keys = s.floats(14, root);
  float* values = s.floats(15, root);
  T *dkeys = nullptr, *dvalues = nullptr;
  for (const int64_t document : family.documents) {
    const auto [task, backward] = backward_of(document);
    const KeyGradients gradients = attend_backward<T>(g, task, backward);
    const int64_t before = task.prefix * g.dim;
    if (before == 0) {
      if (family.documents.size() == 1) {
        row.store(gradients.keys, g.dim, backward.dkeys, key_stride, task.end, g.dim);
        row.store(gradients.values, g.dim, backward.dvalues, key_stride, task.end, g.dim);
        return;
      }
      std::copy_n(gradients.keys, root, keys);
      std::copy_n(gradients.values, root, values);
      dkeys = backward.dkeys;
      dvalues = backward.dvalues;
      continue;
    }
    for (int64_t i = 0; i < before; ++i) keys[i] += gradients.keys[i];
    for (int64_t i = 0; i < before; ++i) values[i] += gradients.values[i];
    const int64_t own = task.end - task.prefix;
    row.store(gradients.keys + before, g.dim, backward.dkeys, key_stride, own, g.dim);
    row.store(gradients.values + before, g.dim, backward.dvalues, key_stride, own, g.dim);
  }
  const int64_t length = root / g.dim;
  row.store(keys, g.dim, dkeys, key_stride, length, g.dim);
  row.store(values, g.dim, dvalues, key_stride, length, g.dim);
}

struct Attention : torch::autograd::Function<Attention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv, const at::Tensor& ends,
                            const std::optional<at::Tensor>& prefixes, int64_t heads,
                            int64_t kv_heads, int64_t head_dim, int64_t window) {
    const AttentionHeads shape{heads, kv_heads, head_dim, window};
    const Geometry g = geometry_of(shape);
    const int64_t tokens = qkv.size(0), stride = qkv.size(1);
    TEMPER_CHECK(qkv.is_contiguous() && stride == (heads + 2 * kv_heads) * head_dim,
                 "attention takes a contiguous qkv");
    at::Tensor out = at::empty({tokens, heads * head_dim}, qkv.options());
    at::Tensor lse = at::empty({heads, tokens}, qkv.options().dtype(at::kFloat));
    const Documents documents(ends, prefixes.value_or(at::Tensor()));
    const std::vector<Piece> pieces = pieces_of(documents, kv_heads);
    with_kernel_type(qkv.scalar_type(), [&](auto type) {
      using T = decltype(type);
      run_tasks(static_cast<int64_t>(pieces.size()), [&](int64_t i) {
        const Piece& p = pieces[i];
        const Head<T> head{g, documents, heads, kv_heads, p.kv_head, stride};
        const int64_t token =
            documents.first(p.document) + p.begin - documents.prefix_length(p.document);
        const int64_t first = p.kv_head * g.group;
        attend<T>(g, head.task(input<T>(qkv), p.document, p.begin, p.end),
                  output<T>(out) + token * out.size(1) + first * g.dim, out.size(1),
                  output<float>(lse) + first * tokens + token, tokens);
      });
    });
    ctx->save_for_backward({qkv, ends, prefixes.value_or(at::Tensor()), out, lse});
    ctx->saved_data["shape"] = std::vector<int64_t>{heads, kv_heads, head_dim, window};
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor &qkv = saved[0], &out = saved[3], &lse = saved[4];
    const std::vector<int64_t> shape = ctx->saved_data["shape"].toIntVector();
    const int64_t heads = shape[0], kv_heads = shape[1];
    const Geometry g = geometry_of({heads, kv_heads, shape[2], shape[3]});
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dqkv = at::empty_like(qkv);
    const int64_t tokens = qkv.size(0), stride = qkv.size(1), out_stride = out.size(1);
    const Documents documents(saved[1], saved[2]);
    const std::vector<Family> families = families_of(documents);
    with_kernel_type(qkv.scalar_type(), [&](auto type) {
      using T = decltype(type);
      run_tasks(static_cast<int64_t>(families.size()) * kv_heads, [&](int64_t i) {
        const Head<T> head{g, documents, heads, kv_heads, i % kv_heads, stride};
        const int64_t first_head = head.kv_head * g.group;
        family_backward<T>(g, documents, families[i / kv_heads], stride, [&](int64_t document) {
          const int64_t token = documents.first(document);
          const int64_t before = documents.prefix_length(document);
          const int64_t result = token * out_stride + first_head * g.dim;
          return std::pair(
              head.task(input<T>(qkv), document, before, before + documents.length(document)),
              Backward<T>{.out = input<T>(out) + result,
                          .dout = input<T>(dout) + result,
                          .out_stride = out_stride,
                          .lse = input<float>(lse) + first_head * tokens + token,
                          .lse_stride = tokens,
                          .dqueries = output<T>(dqkv) + head.query(token),
                          .dkeys = output<T>(dqkv) + head.key(token),
                          .dvalues = output<T>(dqkv) + head.value(token)});
        });
      });
    });
    return {dqkv, {}, {}, {}, {}, {}, {}};
  }
};

}  // namespace

DocumentLayout on_device(DocumentLayout documents, at::Device device) {
  if (documents.device_ends.defined()) return documents;
  documents.device_ends = sent_to(device, documents.ends);
  if (!documents.prefixes.defined()) return documents;
  documents.device_prefixes = sent_to(device, documents.prefixes);
  if (device.is_cpu()) return documents;
  const int32_t* ends = input<int32_t>(documents.ends);
  const int32_t* prefixes = input<int32_t>(documents.prefixes);
  std::vector<int64_t> seen;
  std::vector<int32_t> seen_ends = {0};
  for (int64_t d = 0; d < documents.prefixes.numel(); ++d) {
    for (const int64_t from : {int64_t{prefixes[d]}, d}) {
      if (from < 0 || ends[d] == ends[d + 1]) continue;
      for (int64_t token = ends[from]; token < ends[from + 1]; ++token) seen.push_back(token);
    }
    seen_ends.push_back(static_cast<int32_t>(seen.size()));
  }
  documents.device_seen = sent_to(device, at::tensor(seen, at::kLong));
  documents.device_seen_ends = sent_to(device, at::tensor(seen_ends, at::kInt));
  return documents;
}

at::Tensor attention(const at::Tensor& qkv, const DocumentLayout& documents,
                     const AttentionHeads& heads) {
  if (kernels_for(qkv)) return device_attention(qkv, documents, heads);
  const std::optional<at::Tensor> prefixes =
      documents.prefixes.defined() ? std::optional(documents.prefixes) : std::nullopt;
  return Attention::apply(qkv, documents.ends, prefixes, heads.heads, heads.kv_heads,
                          heads.head_dim, heads.window);
}

}  // namespace temper::trainer
