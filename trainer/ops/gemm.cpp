#include "trainer/ops/gemm.h"

#include <algorithm>
#include <map>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include "trainer/ops/dispatch.h"

// LibTorch's product in float32 is MKL's, which on some processors runs far below what they can do;
// oneDNN's micro-kernels (brgemm) do not. So: B is copied into panels of kPanel columns, a group of
// panels at a time that the shared cache holds; rows of A go against all panels of the group in
// blocks that a core's own cache holds. Few rows (decoding) share no packed B that is worth
// keeping, unless it is a weight that many products use (KeptWeights): there the threads share the
// columns, and each packs what it multiplies with next. Sums
// over k run in order within blocks of kDepth, whatever the other sizes and the threads, so that a
// token has the same bits alone and in a batch. Float16, which few processors multiply, is widened:
// A as a whole (activations), B, which may be a large weight, where it is packed.
namespace temper::trainer {

struct KeptWeights::State {
  using Key = std::tuple<const void*, int64_t, int64_t, int64_t>;  // data, k, columns, stride
  int64_t limit;
  int64_t bytes = 0;
  std::map<Key, at::Tensor> packed{};
};

namespace {

thread_local KeptWeights::State* kept_weights = nullptr;

constexpr int64_t kPanel = 64;            // columns of B
constexpr int64_t kRows = 128;            // rows of A, at most
constexpr int64_t kDepth = 512;           // k
constexpr int64_t kGroupBytes = 8 << 20;  // packed B
constexpr int64_t kTileColumns = 1024;    // of float32 sums that are rounded at the end
constexpr int64_t kFewRows = 64;          // at most: each thread packs its own columns of B

template <class T>
void brgemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb,
            float* c, int64_t ldc, bool add) {
  using Scalar = ScalarOf<T>;
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, reinterpret_cast<const Scalar*>(a),
                              reinterpret_cast<const Scalar*>(b), c, std::is_same_v<T, cpu::Bf16>);
}

// oneDNN's micro-kernels are there on x86-64 with a LibTorch that has them; asking is trying.
template <class T>
bool has_brgemm() {
  static const bool found = [] {
    const T zeros[32] = {};
    float result[16];
    try {
      brgemm(1, 16, 2, zeros, 2, zeros, 16, result, 16, false);
    } catch (const c10::Error&) {
      return false;
    }
    return true;
  }();
  return found;
}

// A matrix of T: row-major, or the transposed of one.
template <class T>
struct Matrix {
  const T* data;
  int64_t stride;
  bool transposed;
  const T* at(int64_t row, int64_t column) const {
    return data + (transposed ? column * stride + row : row * stride + column);
  }
};

template <class T>
Matrix<T> matrix_of(const at::Tensor& tensor) {
  const bool rows = tensor.stride(1) == 1 || tensor.size(1) == 1;
  TEMPER_CHECK(rows || tensor.stride(0) == 1 || tensor.size(0) == 1,
               "gemm takes row- or column-major matrices");
  return {input<T>(tensor), tensor.stride(rows ? 0 : 1), !rows};
}

// Memory of a thread (A) or of the caller (B) that lives on.
template <class T>
T* scratch(std::unique_ptr<char[]>& buffer, int64_t& bytes, int64_t count) {
  constexpr int64_t kAlignment = 64;
  const int64_t wanted = count * static_cast<int64_t>(sizeof(T)) + kAlignment;
  if (bytes < wanted) {
    buffer.reset(new char[wanted]);
    bytes = wanted;
  }
  const auto address = reinterpret_cast<uintptr_t>(buffer.get());
  return reinterpret_cast<T*>((address + kAlignment - 1) / kAlignment * kAlignment);
}

// T is the type of b and, unless that is float32, of c; a has the type in which products are taken.
template <class T>
class Product {
  using P = cpu::Packed<T>;

 public:
  Product(const at::Tensor& c, const at::Tensor& a, const at::Tensor& b, const GemmOptions& options)
      : m_(a.size(0)),
        n_(b.size(1)),
        c_(c),
        options_(options),
        direct_(c.scalar_type() == at::kFloat) {
    factors_.push_back({matrix_of<P>(a), matrix_of<T>(b), a.size(1), 0});
    if (options.a2.defined()) {
      factors_.push_back({matrix_of<P>(options.a2), matrix_of<T>(options.b2), options.a2.size(1),
                          round_up(a.size(1), kWord)});
    }
    depth_ = factors_.back().first + round_up(factors_.back().k, kWord);
  }

  void run() {
    const bool by_rows = std::any_of(factors_.begin(), factors_.end(),
                                     [](const Factors& f) { return f.a.transposed; });
    if (m_ <= kFewRows && !by_rows) {
      run_by_columns();
    } else {
      run_by_rows();
    }
  }

 private:
  static constexpr int64_t kWord = sizeof(float) / sizeof(P);
  static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

  void run_by_rows() {
    const int64_t group =
        std::clamp(kGroupBytes / static_cast<int64_t>(sizeof(P)) / depth_ / kPanel * kPanel, kPanel,
                   std::min(round_up(n_, kPanel), direct_ ? n_ + kPanel : kTileColumns));
    int64_t rows = kRows;
    while (rows > 32 && m_ < rows * 2 * at::get_num_threads()) rows /= 2;
    const int64_t blocks = (m_ + rows - 1) / rows;
    thread_local std::unique_ptr<char[]> buffer;
    thread_local int64_t bytes = 0;
    packed_ = scratch<P>(buffer, bytes, depth_ * group);
    for (int64_t first = 0; first < n_; first += group) {
      const int64_t columns = std::min(group, n_ - first);
      const int64_t panels = (columns + kPanel - 1) / kPanel;
      at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) pack_panel(first, panel);
      });
      at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
          multiply_rows(block * rows, std::min(m_, (block + 1) * rows), first, panels);
        }
      });
    }
  }

  void run_by_columns() {
    if (options_.weight && kept_weights) factors_.front().packed = kept(factors_.front());
    at::parallel_for(0, (n_ + kPanel - 1) / kPanel, 1, [&](int64_t begin, int64_t end) {
      thread_local std::unique_ptr<char[]> buffer;
      thread_local int64_t bytes = 0;
      P* packed = scratch<P>(buffer, bytes, kPanel * kDepth + m_ * kPanel * kWord);
      for (int64_t panel = begin; panel < end; ++panel) {
        multiply_columns(panel * kPanel, std::min(kPanel, n_ - panel * kPanel), packed);
      }
    });
  }

  void multiply_columns(int64_t column, int64_t columns, P* packed) {
    const int64_t stride = direct_ ? c_.stride(0) : kPanel;
    float* sums =
        direct_ ? output<float>(c_) + column : reinterpret_cast<float*>(packed + kPanel * kDepth);
    bool add = start(sums, stride, 0, m_, column, columns);
    const auto& pack = cpu::pack_kernels<T>();
    for (const Factors& f : factors_) {
      for (int64_t k = 0; k < f.k; k += kDepth) {
        const int64_t count = std::min(kDepth, f.k - k);
        const P* b = f.packed ? f.packed + column * round_up(f.k, kWord) + k * kPanel : packed;
        if (!f.packed) {
          (f.b.transposed ? pack.columns : pack.rows)(f.b.at(k, column), f.b.stride, packed, kPanel,
                                                      count, columns);
        }
        multiply(m_, columns, round_up(count, kWord), f.a.at(0, k), f.a.stride, b, sums, stride,
                 add);
        add = true;
      }
    }
    finish(sums, stride, 0, m_, column, columns);
  }

  int64_t width(int64_t first, int64_t panel) const {
    return std::min(kPanel, n_ - first - panel * kPanel);
  }
  // Blocks of k of a panel stand one after the other, so that any of them begins at k x kPanel.
  P* panel_at(int64_t panel, int64_t k) const { return packed_ + (panel * depth_ + k) * kPanel; }

  void pack_panel(int64_t first, int64_t panel) {
    const int64_t column = first + panel * kPanel;
    const auto& pack = cpu::pack_kernels<T>();
    for (const Factors& f : factors_) {
      (f.b.transposed ? pack.columns : pack.rows)(f.b.at(0, column), f.b.stride,
                                                  panel_at(panel, f.first), kPanel, f.k,
                                                  width(first, panel));
    }
  }

  // Sums go to c itself where it is float32, else to a tile that is rounded at the end.
  void multiply_rows(int64_t begin, int64_t end, int64_t first, int64_t panels) {
    thread_local std::unique_ptr<char[]> buffer;
    thread_local int64_t bytes = 0;
    const int64_t rows = end - begin;
    const int64_t columns = std::min(panels * kPanel, n_ - first);
    const int64_t depth = round_up(std::min(depth_, kDepth), kWord);
    P* turned = scratch<P>(buffer, bytes, kRows * depth + (direct_ ? 0 : kRows * columns * kWord));
    const int64_t stride = direct_ ? c_.stride(0) : columns;
    float* sums = direct_ ? output<float>(c_) + begin * stride + first
                          : reinterpret_cast<float*>(turned + kRows * depth);
    bool add = start(sums, stride, begin, rows, first, columns);
    for (const Factors& f : factors_) {
      for (int64_t k = 0; k < f.k; k += kDepth) {
        const int64_t count = std::min(kDepth, f.k - k);
        const RowsOfA a = rows_of_a(f.a, begin, end, k, count, turned, depth);
        for (int64_t panel = 0; panel < panels; ++panel) {
          multiply(rows, width(first, panel), round_up(count, kWord), a.data, a.stride,
                   panel_at(panel, f.first + k), sums + panel * kPanel, stride, add);
        }
        add = true;
      }
    }
    finish(sums, stride, begin, rows, first, columns);
  }

  // Whether products are added to what `sums` holds.
  bool start(float* sums, int64_t stride, int64_t row, int64_t rows, int64_t column,
             int64_t columns) const {
    const bool start_from_add = direct_ && options_.add.defined();
    if (start_from_add) {
      cpu::row_kernels<float>().store(added<float>(row, column), options_.add.stride(0), sums,
                                      stride, rows, columns);
    }
    return options_.accumulate || start_from_add;
  }

  void finish(const float* sums, int64_t stride, int64_t row, int64_t rows, int64_t column,
              int64_t columns) const {
    if (direct_) return;
    T* out = output<T>(c_) + row * c_.stride(0) + column;
    if (options_.add.defined()) {
      cpu::row_kernels<T>().store_sum(sums, stride, added<T>(row, column), options_.add.stride(0),
                                      out, c_.stride(0), rows, columns);
    } else {
      cpu::row_kernels<T>().store(sums, stride, out, c_.stride(0), rows, columns);
    }
  }

  template <class U>
  const U* added(int64_t row, int64_t column) const {
    return input<U>(options_.add) + row * options_.add.stride(0) + column;
  }

  struct RowsOfA {
    const P* data;
    int64_t stride;
  };
  // Rows [begin, end) of A from k on; A^T is turned into `turned` first.
  RowsOfA rows_of_a(const Matrix<P>& a, int64_t begin, int64_t end, int64_t k, int64_t count,
                    P* turned, int64_t depth) const {
    if (!a.transposed) return {a.at(begin, k), a.stride};
    cpu::pack_kernels<P>().transposed(a.at(begin, k), a.stride, turned, depth, count, end - begin);
    return {turned, depth};
  }

  // A kernel is made for each shape: rows are cut into powers of two, so that there are few.
  static void multiply(int64_t m, int64_t n, int64_t k, const P* a, int64_t lda, const P* b,
                       float* c, int64_t ldc, bool add) {
    for (int64_t part = kRows, row = 0; row < m; part /= 2) {
      if (m - row < part) continue;
      brgemm(part, n, k, a + row * lda, lda, b, kPanel, c + row * ldc, ldc, add);
      row += part;
      part *= 2;
    }
  }

  struct Factors {
    Matrix<P> a;
    Matrix<T> b;
    int64_t k;
    int64_t first;  // row of a packed panel where b begins
    const P* packed = nullptr;  // all panels of b, where they are kept
  };

  // All panels of b, one after the other; null where there is no room for them.
  const P* kept(const Factors& f) const {
    const int64_t depth = round_up(f.k, kWord), panels = (n_ + kPanel - 1) / kPanel;
    const KeptWeights::State::Key key{f.b.data, f.k, n_, f.b.stride};
    at::Tensor& all = kept_weights->packed[key];
    if (!all.defined()) {
      const int64_t bytes = panels * kPanel * depth * static_cast<int64_t>(sizeof(P));
      if (kept_weights->bytes + bytes > kept_weights->limit) return nullptr;
      kept_weights->bytes += bytes;
      all = at::empty({panels, depth, kPanel}, c10::CppTypeToScalarType<ScalarOf<P>>::value);
      P* to = output<P>(all);
      const auto& pack = cpu::pack_kernels<T>();
      at::parallel_for(0, panels, 1, [&](int64_t begin, int64_t end) {
        for (int64_t panel = begin; panel < end; ++panel) {
          (f.b.transposed ? pack.columns : pack.rows)(
              f.b.at(0, panel * kPanel), f.b.stride, to + panel * depth * kPanel, kPanel, f.k,
              std::min(kPanel, n_ - panel * kPanel));
        }
      });
    }
    return input<P>(all);
  }

  int64_t m_, n_;
  std::vector<Factors> factors_;
  int64_t depth_ = 0;  // rows of a packed panel
  at::Tensor c_;
  const GemmOptions& options_;
  bool direct_;
  P* packed_ = nullptr;
};

void library_gemm(at::Tensor c, const at::Tensor& a, const at::Tensor& b,
                  const GemmOptions& options) {
  const bool same = c.scalar_type() == a.scalar_type();
  if (same && options.accumulate) {
    c.addmm_(a, b);
  } else if (same) {
    at::mm_out(c, a, b);
  } else {
    const at::Tensor product = at::mm(a.to(c.scalar_type()), b.to(c.scalar_type()));
    if (options.accumulate) {
      c.add_(product);
    } else {
      c.copy_(product);
    }
  }
  if (options.add.defined()) c.add_(options.add);
  if (!options.a2.defined()) return;
  if (same) {
    c.addmm_(options.a2, options.b2);
  } else {
    c.add_(at::mm(options.a2.to(c.scalar_type()), options.b2.to(c.scalar_type())));
  }
}

void half_gemm(at::Tensor c, const at::Tensor& a, const at::Tensor& b, GemmOptions options) {
  const auto widen = [](at::Tensor& tensor) {
    if (tensor.defined()) tensor = tensor.to(at::kFloat);
  };
  widen(options.a2);
  if (has_brgemm<float>()) {
    Product<cpu::Fp16>(c, a.to(at::kFloat), b, options).run();
    return;
  }
  widen(options.add);
  widen(options.b2);
  at::Tensor sums =
      c.scalar_type() == at::kFloat ? c : at::empty(c.sizes(), c.options().dtype(at::kFloat));
  library_gemm(sums, a.to(at::kFloat), b.to(at::kFloat), options);
  if (!sums.is_same(c)) c.copy_(sums);
}

// The vendor's library, through LibTorch. Sums over k are float32 whatever c's type; c is rounded after each of its terms.
void device_gemm(at::Tensor c, const at::Tensor& a, const at::Tensor& b,
                 const GemmOptions& options) {
  const auto add_term = [&](const at::Tensor& to, const at::Tensor& left, const at::Tensor& right) {
    if (c.scalar_type() == left.scalar_type()) {
      at::addmm_out(c, to, left, right);
    } else {
      at::addmm_out(c, to, left, right, c.scalar_type());
    }
  };
  if (options.accumulate) {
    add_term(c, a, b);
    if (options.add.defined()) c.add_(options.add);
  } else if (options.add.defined()) {
    add_term(options.add, a, b);
  } else if (c.scalar_type() == a.scalar_type()) {
    at::mm_out(c, a, b);
  } else {
    at::mm_out(c, a, b, c.scalar_type());
  }
  if (options.a2.defined()) add_term(c, options.a2, options.b2);
}

}  // namespace

KeptWeights::KeptWeights(int64_t limit) {
  if (kept_weights != nullptr) return;  // one that lives longer
  state_ = std::make_unique<State>(State{.limit = limit});
  kept_weights = state_.get();
}

KeptWeights::~KeptWeights() {
  if (state_) kept_weights = nullptr;
}

void gemm(at::Tensor c, const at::Tensor& a, const at::Tensor& b, const GemmOptions& options) {
  TEMPER_CHECK(c.size(0) == a.size(0) && a.size(1) == b.size(0) && c.size(1) == b.size(1) &&
                   c.stride(1) == 1,
               "gemm: shapes do not fit");
  if (c.numel() == 0) return;
  if (!c.is_cpu()) return device_gemm(c, a, b, options);
  if (a.scalar_type() == at::kHalf) return half_gemm(c, a, b, options);
  with_kernel_type(a.scalar_type(), [&](auto type) {
    using T = decltype(type);
    // An odd k in bfloat16 would make A's last word reach into its next row.
    const auto odd = [](const at::Tensor& left) {
      return left.defined() && left.size(1) % (sizeof(float) / sizeof(T)) != 0 &&
             left.stride(1) == 1;
    };
    if constexpr (!std::is_same_v<T, cpu::Fp16>) {
      if (has_brgemm<T>() && !odd(a) && !odd(options.a2)) return Product<T>(c, a, b, options).run();
    }
    library_gemm(c, a, b, options);
  });
}

void block_gemm(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
                int64_t ldb, float* c, int64_t ldc, bool add) {
  if (has_brgemm<float>()) {
    brgemm(m, n, k, a, lda, b, ldb, c, ldc, add);
  } else {
    cpu::kernels().gemm(m, n, k, a, lda, b, ldb, c, ldc, add);
  }
}

}  // namespace temper::trainer
