#pragma once

#include <cstdint>
#include <type_traits>

/// Inner loops of the CPU operators: plain pointers and sizes, no threads, no LibTorch. kernels.inl
/// is compiled once for each instruction set (AVX-512, AVX2, baseline) and chosen at run time; all
/// of them work in lanes of 16, so that sums are taken in the same order everywhere. Rows are `dim`
/// long and contiguous unless a stride is given.
namespace temper::trainer::cpu {

/// Same bytes as c10::BFloat16.
struct Bf16 {
  uint16_t bits;
};

/// Same bytes as c10::Half.
struct Fp16 {
  uint16_t bits;
};

struct SoftmaxRow {
  float log_sum_exp = 0;  // max + log_total
  float max = 0;          // of the logits
  float log_total = 0;    // log sum exp(logits - max)
  float entropy = 0;      // -sum p log p, nats
  float mean = 0;         // of the logits
  int64_t argmax = 0;
};

/// T is float, Bf16 or Fp16; all arithmetic is float32.
template <class T>
struct RowKernels {
  /// y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + eps). `rstd` [rows * heads] is kept for
  /// backward. A row holds `heads` consecutive vectors of `dim` to be normed one by one; rows are
  /// `stride_x` and `stride_y` elements apart.
  void (*rms_norm)(const T* x, int64_t stride_x, const T* weight, T* y, int64_t stride_y,
                   float* rstd, int64_t rows, int64_t heads, int64_t dim, float eps);
  /// dx = dres + rstd * (w dy - xhat mean(w dy xhat)); dweight[dim] += sum dy xhat. `dres` may be
  /// null. In place on dy is allowed.
  void (*rms_norm_backward)(const T* dy, int64_t stride_dy, const T* x, int64_t stride_x,
                            const T* weight, const float* rstd, const T* dres, T* dx,
                            int64_t stride_dx, float* dweight, int64_t rows, int64_t heads,
                            int64_t dim);
  /// y = (x - mean) * rstd * weight + bias, rstd = 1 / sqrt(mean((x - mean)^2) + eps); `mean` and
  /// `rstd` [rows] are kept for backward.
  void (*layer_norm)(const T* x, const T* weight, const T* bias, T* y, float* mean, float* rstd,
                     int64_t rows, int64_t dim, float eps);
  /// dx = dres + rstd * (w dy - mean(w dy) - xhat mean(w dy xhat)); dweight[dim] += sum dy xhat.
  /// `dres` may be null.
  void (*layer_norm_backward)(const T* dy, const T* x, const T* weight, const float* mean,
                              const float* rstd, const T* dres, T* dx, float* dweight,
                              int64_t rows, int64_t dim);
  /// Rotates pairs (i, i + rot / 2) of `heads` heads of `dim` in each row by the angles of `cos`,
  /// `sin` [rows, rot / 2]; `sign` -1: back.
  void (*rope)(T* x, int64_t stride, const float* cos, const float* sin, int64_t rows,
               int64_t heads, int64_t dim, int64_t rot, float sign);
  /// out = silu(gate) * up, with gate_up = [gate | up] in a row of 2 * dim.
  void (*swiglu)(const T* gate_up, T* out, int64_t rows, int64_t dim);
  void (*swiglu_backward)(const T* dout, const T* gate_up, T* dgate_up, int64_t rows, int64_t dim);
  /// out = x Phi(x), or with `tanh` what ops/gelu.h says.
  void (*gelu)(const T* x, T* out, int64_t count, bool tanh);
  void (*gelu_backward)(const T* dout, const T* x, T* dx, int64_t count, bool tanh);
  /// dst[r, c] (float, rows `dst_stride` apart) = src[r, c] * scale
  void (*load)(const T* src, int64_t src_stride, float* dst, int64_t dst_stride, int64_t rows,
               int64_t dim, float scale);
  /// dst[c, r] = src[r, c] * scale
  void (*load_transposed)(const T* src, int64_t src_stride, float* dst, int64_t dst_stride,
                          int64_t rows, int64_t dim, float scale);
  /// dst = src, rounded to T
  void (*store)(const float* src, int64_t src_stride, T* dst, int64_t dst_stride, int64_t rows,
                int64_t dim);
  /// dst = src + add
  void (*store_sum)(const float* src, int64_t src_stride, const T* add, int64_t add_stride, T* dst,
                    int64_t dst_stride, int64_t rows, int64_t dim);
  /// dst[r, c] = src[c, r] * scale, dst [rows, dim]
  void (*store_transposed)(const float* src, int64_t src_stride, T* dst, int64_t dst_stride,
                           int64_t rows, int64_t dim, float scale);
  /// dots[r] = sum over a row of a * b
  void (*row_dots)(const T* a, int64_t a_stride, const T* b, int64_t b_stride, float* dots,
                   int64_t rows, int64_t dim);
  /// sums[c] += sum over rows of x[r, c], rows in order.
  void (*column_sums)(const T* x, int64_t stride, float* sums, int64_t rows, int64_t dim);
  /// accumulator[c] += x[c]
  void (*add)(const T* x, float* accumulator, int64_t dim);
  /// Gradient of -log softmax(logits)[label], times `scale`, in T.
  void (*softmax_gradient)(const float* logits, float log_sum_exp, int64_t label, float scale,
                           T* out, int64_t dim);
  /// out = d log p[label] / d logits * dlog_prob + d entropy / d logits * dentropy
  void (*log_prob_gradient)(const float* logits, float log_sum_exp, float entropy, int64_t label,
                            float dlog_prob, float dentropy, T* out, int64_t dim);
  /// The divergence of head_divergence.h of two rows of logits, which are overwritten; out (unless
  /// null; it may be `student`) = d divergence / d student * scale.
  float (*divergence)(float* student, const SoftmaxRow& student_row, float* teacher,
                      const SoftmaxRow& teacher_row, float beta, float scale, T* out, int64_t dim);
};

/// Attention over blocks of keys (rows) and queries (columns, a multiple of 16, `ld` apart); see
/// attention.cpp.
struct AttentionKernels {
  /// Online softmax down the columns of scores [keys, ld]: on return scores = exp(score - peak).
  /// `first[c]`, `last[c]`: the keys (rows) that column c may see, others become 0. peak and total
  /// [columns] are updated; `rescale[c]` = exp(old peak - new peak).
  void (*softmax)(float* scores, int64_t keys, int64_t columns, int64_t ld, const int32_t* first,
                  const int32_t* last, float* peak, float* total, float* rescale);
  /// rows of `x` times `factor` [columns]
  void (*scale_columns)(float* x, int64_t rows, int64_t columns, int64_t ld, const float* factor);
  /// scores = exp(scores - lse) where allowed, else 0; dscores = scores * (dscores - delta)
  void (*softmax_backward)(float* scores, float* dscores, int64_t keys, int64_t columns, int64_t ld,
                           const int32_t* first, const int32_t* last, const float* lse,
                           const float* delta);
};

/// Attention over a cache in pages of 16 tokens (ops/paged_attention.h).
template <class T>
struct PagedKernels {
  /// out [heads, dim] = softmax(scale queries K^T) V over the keys [first, length) of one key/value
  /// head: page p has keys [dim][16], then values [16][dim], at pages[p] + offset bytes. scratch:
  /// 8 dim + 512 floats.
  void (*attend)(const T* queries, int64_t heads, int64_t dim, float scale, char* const* pages,
                 int64_t offset, int64_t first, int64_t length, T* out, float* scratch);
};

/// What a product multiplies elements of T as: few processors multiply float16.
template <class T>
using Packed = std::conditional_t<std::is_same_v<T, Fp16>, float, T>;

/// Operands of a matrix product laid out for its inner kernel. `Word` is one float, or two bfloat16
/// that follow each other in k. Sizes count elements, k is rounded up to whole words with zeros.
template <class T>
struct PackKernels {
  /// dst [k words][columns] = rows of src [k, columns]
  void (*rows)(const T* src, int64_t stride, Packed<T>* dst, int64_t dst_columns, int64_t k,
               int64_t columns);
  /// dst [k words][columns] = columns of src [columns, k]
  void (*columns)(const T* src, int64_t stride, Packed<T>* dst, int64_t dst_columns, int64_t k,
                  int64_t columns);
  /// dst [m, k], rows dst_stride apart, = transposed src [k, m]
  void (*transposed)(const T* src, int64_t stride, Packed<T>* dst, int64_t dst_stride, int64_t k,
                     int64_t m);
};

/// What sixteen codes of four bits stand for.
struct FourBitCode {
  float values[16];
  float bounds[16];    // the fifteen midpoints between the sorted values
  int32_t sorted[16];  // the codes in ascending order of their values
};

/// Matrices in four and eight bits (ops/quantized.h); T is what they are widened to. Blocks of 64
/// elements of the flat matrix share a scale.
template <class T>
struct QuantKernels {
  /// out = elements begin..end of the flat matrix; scales[0] belongs to the block of `begin`.
  void (*dequantize4)(const uint8_t* codes, const float* values, const float* scales, int64_t begin,
                      int64_t end, T* out);
  /// out = codes * scale / 127, a row.
  void (*dequantize8)(const int8_t* codes, float scale, T* out, int64_t dim);
  /// y[r * stride_y + o] = the product of row r of x and row o of the matrix, its elements rounded
  /// to T. `rows` is at most 16; x has rows up to the next power of two, `stride_x` apart. dim is a
  /// multiple of 64, codes and scales are those of the first output.
  void (*multiply4)(const float* x, int64_t stride_x, int64_t rows, const uint8_t* codes,
                    const float* values, const float* scales, int64_t dim, int64_t outputs, T* y,
                    int64_t stride_y);
  /// The same with the matrix' rows as they are, any dim; x is zero from dim to a multiple of 16.
  void (*multiply)(const float* x, int64_t stride_x, int64_t rows, const T* weights, int64_t dim,
                   int64_t outputs, T* y, int64_t stride_y);
};

/// Elements of a row whose exponentials exp_row sums together.
inline constexpr int64_t kExpBlock = 256;

struct Kernels {
  const char* name;
  RowKernels<float> f32;
  RowKernels<Bf16> bf16;
  RowKernels<Fp16> fp16;
  PackKernels<float> pack_f32;
  PackKernels<Bf16> pack_bf16;
  PackKernels<Fp16> pack_fp16;
  AttentionKernels attention;
  QuantKernels<float> quant_f32;
  QuantKernels<Bf16> quant_bf16;
  QuantKernels<Fp16> quant_fp16;
  /// Blocks of 64 elements to codes (byte k: element 2k in its high half) and scales; a last,
  /// shorter block only at the matrix' end. False when a value is NaN or infinite.
  bool (*quantize4)(const float* x, int64_t count, const FourBitCode& code, uint8_t* codes,
                    float* absmax);
  /// At most 256 elements to 8 bits (ops/blockwise.h): nearest[65536] is indexed by x / absmax.
  /// Returns absmax.
  float (*quantize8)(const float* x, int64_t count, const uint8_t* nearest, uint8_t* codes);
  SoftmaxRow (*softmax_row)(const float* logits, int64_t dim);
  /// out = exp(logits - peak), 0 where a logit is -infinity; sums[b]: of block b of kExpBlock.
  void (*exp_row)(const float* logits, float peak, float* out, float* sums, int64_t dim);
  PagedKernels<float> paged_f32;
  PagedKernels<Bf16> paged_bf16;
  PagedKernels<Fp16> paged_fp16;
  /// c [m, n] (+)= a [m, k] b [k, n], row-major float32: where LibTorch has no brgemm for this
  /// machine.
  void (*gemm)(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda, const float* b,
               int64_t ldb, float* c, int64_t ldc, bool add);
};

/// The best set this machine runs.
const Kernels& kernels();

template <class T>
const RowKernels<T>& row_kernels();
template <>
inline const RowKernels<float>& row_kernels<float>() {
  return kernels().f32;
}
template <>
inline const RowKernels<Bf16>& row_kernels<Bf16>() {
  return kernels().bf16;
}
template <>
inline const RowKernels<Fp16>& row_kernels<Fp16>() {
  return kernels().fp16;
}

template <class T>
const PackKernels<T>& pack_kernels();
template <>
inline const PackKernels<float>& pack_kernels<float>() {
  return kernels().pack_f32;
}
template <>
inline const PackKernels<Bf16>& pack_kernels<Bf16>() {
  return kernels().pack_bf16;
}
template <>
inline const PackKernels<Fp16>& pack_kernels<Fp16>() {
  return kernels().pack_fp16;
}

template <class T>
const QuantKernels<T>& quant_kernels();
template <>
inline const QuantKernels<float>& quant_kernels<float>() {
  return kernels().quant_f32;
}
template <>
inline const QuantKernels<Bf16>& quant_kernels<Bf16>() {
  return kernels().quant_bf16;
}
template <>
inline const QuantKernels<Fp16>& quant_kernels<Fp16>() {
  return kernels().quant_fp16;
}

template <class T>
const PagedKernels<T>& paged_kernels();
template <>
inline const PagedKernels<float>& paged_kernels<float>() {
  return kernels().paged_f32;
}
template <>
inline const PagedKernels<Bf16>& paged_kernels<Bf16>() {
  return kernels().paged_bf16;
}
template <>
inline const PagedKernels<Fp16>& paged_kernels<Fp16>() {
  return kernels().paged_fp16;
}

}  // namespace temper::trainer::cpu
