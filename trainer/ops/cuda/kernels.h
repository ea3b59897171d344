#pragma once

#include "trainer/ops/cuda/adamw_8bit_math.h"
#include "trainer/ops/cuda/adamw_math.h"
#include "trainer/ops/cuda/quantized_math.h"

struct CUstream_st;

/// Launches on a stream; all pointers are the device's, nothing is checked here and nothing is
/// waited for. Each returns cudaGetLastError() as an int, 0 for success. Rows are contiguous unless
/// a stride is given; `type` is that of void pointers, all else has the type it is declared with.
/// What an operator computes is said where the operator is (ops/*.h) and for the CPU in
/// ops/cpu/kernels.h.
namespace temper::trainer::cuda {

/// Rows of `heads` vectors of `dim`, rows `stride` elements apart.
struct NormView {
  const void* x = nullptr;
  int64_t stride_x = 0;
  const void* weight = nullptr;
  const void* bias = nullptr;  // of layer_norm alone
  void* y = nullptr;
  int64_t stride_y = 0;
  float* mean = nullptr;  // likewise, [rows * heads]
  float* rstd = nullptr;  // [rows * heads]
  int64_t rows = 0, heads = 1, dim = 0;
  float eps = 0;
};
int rms_norm(Element type, const NormView& view, CUstream_st* stream);
int layer_norm(Element type, const NormView& view, CUstream_st* stream);

/// `partial` [norm_partials(rows * heads, dim), dim] is written: its column sums are the
/// gradient of the weight.
struct NormBackwardView {
  const void* dy = nullptr;
  int64_t stride_dy = 0;
  const void* x = nullptr;
  int64_t stride_x = 0;
  const void* weight = nullptr;
  const float* mean = nullptr;  // of layer_norm alone
  const float* rstd = nullptr;
  const void* residual = nullptr;  // added to dx, as dx; may be null
  void* dx = nullptr;
  int64_t stride_dx = 0;
  float* partial = nullptr;
  int64_t rows = 0, heads = 1, dim = 0;
};
int rms_norm_backward(Element type, const NormBackwardView& view, CUstream_st* stream);
int layer_norm_backward(Element type, const NormBackwardView& view, CUstream_st* stream);
int64_t norm_partials(int64_t vectors, int64_t dim);

/// In place on the first `heads` heads of `dim` of each row.
struct RopeView {
  void* x = nullptr;
  int64_t stride = 0;
  const float *cos = nullptr, *sin = nullptr;  // [rows, half]
  int64_t rows = 0, heads = 0, dim = 0, half = 0;
  float sign = 1;  // -1: back
};
int rope(Element type, const RopeView& view, CUstream_st* stream);

int swiglu(Element type, const void* gate_up, void* out, int64_t rows, int64_t dim,
           CUstream_st* stream);
int swiglu_backward(Element type, const void* dout, const void* gate_up, void* dgate_up,
                    int64_t rows, int64_t dim, CUstream_st* stream);

/// Of `count` elements; the form with `tanh` or with erf.
int gelu(Element type, const void* x, void* out, int64_t count, bool tanh, CUstream_st* stream);
int gelu_backward(Element type, const void* dout, const void* x, void* dx, int64_t count, bool tanh,
                  CUstream_st* stream);

/// to = from * scale, or 0 where the element's 32 random bits are below `limit`.
struct DropoutView {
  const void* from = nullptr;
  void* to = nullptr;
  int64_t count = 0;
  uint64_t seed = 0;
  uint32_t limit = 0;
  float scale = 1;
};
int dropout(Element type, const DropoutView& view, CUstream_st* stream);

/// Of each row of logits [rows, vocabulary], rows `stride` elements apart: log p of its label, entropy
/// (nats), log sum exp, mean logit, 1 where the label is the first of the most probable tokens.
struct TokenRowsView {
  const float* logits = nullptr;
  int64_t stride = 0;
  const int64_t* labels = nullptr;
  float *log_prob = nullptr, *entropy = nullptr, *log_sum_exp = nullptr, *mean = nullptr,
        *correct = nullptr;
  int64_t rows = 0, vocabulary = 0;
};
int token_values(const TokenRowsView& view, CUstream_st* stream);

/// out = d log p[label] / d logits * dlog_prob + d entropy / d logits * dentropy; float32 may be in
/// place. entropy and dentropy may be null.
struct TokenGradientView {
  const float* logits = nullptr;
  int64_t stride = 0;
  const int64_t* labels = nullptr;
  const float *log_sum_exp = nullptr, *entropy = nullptr, *dlog_prob = nullptr, *dentropy = nullptr;
  void* out = nullptr;
  int64_t stride_out = 0;
  int64_t rows = 0, vocabulary = 0;
};
int token_gradient(Element type, const TokenGradientView& view, CUstream_st* stream);

/// generation/sampling.h: the token that follows a row of logits.
struct TokenDraw {
  int64_t row = 0;            // of the logits; draws may share one
  double uniform = 0;         // in [0, 1): which token it is
  uint32_t* seen = nullptr;   // a bit for each token of the vocabulary; null: no repetition penalty
  const int32_t* marked = nullptr;  // tokens whose bits are set first
  int64_t marks = 0;
};
struct DrawnToken {
  int32_t id = 0;  // -1: the logits are not finite
  float log_prob = 0, drawn_log_prob = 0;
};
constexpr int64_t kLargestVocabulary = (int64_t{1} << 20) - 1;
struct SamplingView {
  const float* logits = nullptr;     // [rows, vocabulary]
  const TokenDraw* draws = nullptr;  // [count]
  DrawnToken* drawn = nullptr;       // [count]
  float* scratch = nullptr;          // [count, vocabulary]; null where greedy
  int64_t count = 0, vocabulary = 0;
  bool greedy = false;
  float penalty = 1, temperature = 1;
  int64_t top_k = 0;                // 0: off
  float tail = 0;                   // 1 - top_p; 0: off
  float min_p = 0;
};
int draw_tokens(const SamplingView& view, CUstream_st* stream);
/// ops/float8.h: the codes of `from`, or with `transposed` of its transpose, in rows of `padded`
/// bytes (a multiple of 16) with zeros behind their end. A scale for each row of codes, a power of
/// two, else one for all.
struct Float8View {
  const void* from = nullptr;
  int64_t stride = 0, rows = 0, columns = 0;
  bool transposed = false, by_row = false, e5m2 = false;
  uint32_t* amax = nullptr;         // [scales], zeros: scratch
  float *scales = nullptr, *inverse_scales = nullptr;  // [scales]
  uint8_t* codes = nullptr;
  int64_t padded = 0;
};
int to_float8(Element type, const Float8View& view, CUstream_st* stream);

constexpr int64_t kLargestHead = 256;

/// ops/attention.h. qkv [tokens, (heads + 2 kv_heads) dim], out [tokens, heads * dim], lse [heads,
/// tokens].
struct AttentionView {
  const void* qkv = nullptr;
  int64_t stride = 0, tokens = 0, heads = 0, kv_heads = 0, dim = 0, window = 0;
  float scale = 1;
  const int32_t* ends = nullptr;      // [documents + 1]
  const int32_t* prefixes = nullptr;  // [documents] or null
  int64_t documents = 0;
  void* out = nullptr;
  float* lse = nullptr;
};
int attention(Element type, const AttentionView& view, CUstream_st* stream);

/// dqkv as qkv, all of it is written; delta [heads, tokens] is scratch.
struct AttentionBackwardView {
  AttentionView forward;
  const void* dout = nullptr;
  void* dqkv = nullptr;
  float* delta = nullptr;
};
int attention_backward(Element type, const AttentionBackwardView& view, CUstream_st* stream);

constexpr int64_t kTokensAPage = 16;

/// ops/paged_attention.h: token t stands at positions[t] of the sequence whose pages begin at
/// pages[first_page[t]].
struct PagedView {
  const void* qkv = nullptr;
  int64_t stride = 0, tokens = 0, heads = 0, kv_heads = 0, dim = 0, window = 0;
  float scale = 1;
  char* const* pages = nullptr;
  const int64_t* first_page = nullptr;
  const int64_t* positions = nullptr;
  int64_t offset = 0, head_bytes = 0;  // of the layer in a page, of a key/value head
  void* out = nullptr;
};
int store_in_pages(Element type, const PagedView& view, CUstream_st* stream);
int attention_in_pages(Element type, const PagedView& view, CUstream_st* stream);

/// Elements begin..end of the flat matrix to `out`.
int dequantize(const QuantizedView& matrix, int64_t begin, int64_t end, Element type, void* out,
               CUstream_st* stream);

/// y [rows, N] = x [rows, D] W^T for 1 to 16 rows, sums in float32; rows of x and y are `stride_x`
/// and `stride_y` elements apart.
int multiply(const QuantizedView& matrix, Element type, const void* x, int64_t stride_x,
             int64_t rows, void* y, int64_t stride_y, CUstream_st* stream);

/// One step of AdamW, of 8-bit AdamW, on one tensor.
int adamw(const AdamWView& tensor, const AdamWStep& step, CUstream_st* stream);
int adamw_8bit(const AdamW8bitView& tensor, const AdamWStep& step, CUstream_st* stream);

/// sums[b] = the sum of squares of the elements of block b of kSquaresABlock.
constexpr int64_t kSquaresABlock = 8192;
int sum_of_squares(const float* x, int64_t count, double* sums, CUstream_st* stream);

/// What the plugin (parallel/plugin.h) gives of these, through one C function.
struct Kernels {
  decltype(&cuda::rms_norm) rms_norm;
  decltype(&cuda::rms_norm_backward) rms_norm_backward;
  decltype(&cuda::norm_partials) norm_partials;
  decltype(&cuda::layer_norm) layer_norm;
  decltype(&cuda::layer_norm_backward) layer_norm_backward;
  decltype(&cuda::rope) rope;
  decltype(&cuda::swiglu) swiglu;
  decltype(&cuda::swiglu_backward) swiglu_backward;
  decltype(&cuda::gelu) gelu;
  decltype(&cuda::gelu_backward) gelu_backward;
  decltype(&cuda::dropout) dropout;
  decltype(&cuda::token_values) token_values;
  decltype(&cuda::token_gradient) token_gradient;
  decltype(&cuda::draw_tokens) draw_tokens;
  decltype(&cuda::to_float8) to_float8;
  decltype(&cuda::attention) attention;
  decltype(&cuda::attention_backward) attention_backward;
  decltype(&cuda::store_in_pages) store_in_pages;
  decltype(&cuda::attention_in_pages) attention_in_pages;
  decltype(&cuda::dequantize) dequantize;
  decltype(&cuda::multiply) multiply;
  decltype(&cuda::adamw) adamw;
  decltype(&cuda::adamw_8bit) adamw_8bit;
  decltype(&cuda::sum_of_squares) sum_of_squares;
};
using KernelsFunction = const Kernels*();
constexpr const char* kKernelsSymbol = "temper_cuda_kernels";

}  // namespace temper::trainer::cuda
