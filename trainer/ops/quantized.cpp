#include "trainer/ops/quantized.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include <omp.h>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "recipes/diagnostic.h"
#include "trainer/ops/blockwise.h"
#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {

namespace {

constexpr int64_t kChunkBlocks = 256;  // of 64 elements, the work of a thread at a time
constexpr int64_t kRowsAtOnce = 8;     // of the matrix, in multiply_quantized
constexpr float kLargestHalf = 65504.0f;

// Quantiles of the normal distribution; the last digits are bitsandbytes'.
constexpr std::array<float, 16> kNf4 = {-1.0f,
                                        -0.6961928009986877f,
                                        -0.5250730514526367f,
                                        -0.39491748809814453f,
                                        -0.28444138169288635f,
                                        -0.18477343022823334f,
                                        -0.09105003625154495f,
                                        0.0f,
                                        0.07958029955625534f,
                                        0.16093020141124725f,
                                        0.24611230194568634f,
                                        0.33791524171829224f,
                                        0.44070982933044434f,
                                        0.5626170039176941f,
                                        0.7229568362236023f,
                                        1.0f};
// Bit 3 is the sign; the others an exponent and a mantissa, of twelve times the value.
constexpr std::array<float, 8> kFp4Twelfths = {0.0f, 0.0625f, 8.0f, 12.0f, 4.0f, 6.0f, 2.0f, 3.0f};

cpu::FourBitCode make_code(QuantKind kind) {
  cpu::FourBitCode code{};
  for (int i = 0; i < 16; ++i) {
    const float magnitude = kFp4Twelfths[i % 8] / 12.0f;
    code.values[i] = kind == QuantKind::kNf4 ? kNf4[i] : i > 8 ? -magnitude : magnitude;
  }
  // FP4 has two zeros: the first stands for -0.0026 .. 0, the second for what is above.
  std::iota(code.sorted, code.sorted + 16, 0);
  std::stable_sort(code.sorted, code.sorted + 16,
                   [&](int a, int b) { return code.values[a] < code.values[b]; });
  for (int i = 0; i < 15; ++i) {
    code.bounds[i] = (code.values[code.sorted[i]] + code.values[code.sorted[i + 1]]) / 2;
  }
  return code;
}

const cpu::FourBitCode& code_of(QuantKind kind) {
  static const cpu::FourBitCode nf4 = make_code(QuantKind::kNf4);
  static const cpu::FourBitCode fp4 = make_code(QuantKind::kFp4);
  TEMPER_CHECK(kind != QuantKind::kInt8, "int8 has no table of values");
  return kind == QuantKind::kNf4 ? nf4 : fp4;
}

// Elements begin..begin + count of a flat tensor as float32, in `buffer` unless they are that.
const float* as_float(const at::Tensor& flat, int64_t begin, int64_t count, float* buffer) {
  if (flat.scalar_type() == at::kFloat) return input<float>(flat) + begin;
  with_kernel_type(flat.scalar_type(), [&](auto type) {
    using T = decltype(type);
    cpu::row_kernels<T>().load(input<T>(flat) + begin, 0, buffer, 0, 1, count, 1);
  });
  return buffer;
}

[[noreturn]] void not_finite(const std::string& name) {
  throw UserError(name + ": holds NaN or infinite values, which have no quantised form");
}

int64_t blocks_of(const QuantizedMatrix& m) { return (m.rows * m.columns + kBlock4 - 1) / kBlock4; }

// at::mean's order depends on the number of threads where there are more than 32768 scales.
float mean_on_one_thread(const at::Tensor& values) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  const float mean = values.mean().item<float>();
  omp_set_num_threads(threads);
  return mean;
}

void quantize_scales(QuantizedMatrix& m, const std::string& name) {
  m.offset = mean_on_one_thread(m.absmax);
  if (!std::isfinite(m.offset)) {
    throw UserError(name + ": holds values so large that the mean of its scales overflows: set "
                           "model.double_quant = false");
  }
  const int64_t count = m.absmax.numel();
  const int64_t nested = (count + kBlock8 - 1) / kBlock8;
  m.absmax_codes = at::empty({count}, at::kByte);
  m.nested_absmax = at::empty({nested}, at::kFloat);
  float* scales = m.absmax.mutable_data_ptr<float>();
  for (int64_t i = 0; i < count; ++i) scales[i] -= m.offset;
  for (int64_t b = 0; b < nested; ++b) {
    const int64_t begin = b * kBlock8;
    m.nested_absmax.mutable_data_ptr<float>()[b] =
        quantize_block(dynamic_code(true), scales + begin, std::min(kBlock8, count - begin),
                       m.absmax_codes.mutable_data_ptr<uint8_t>() + begin);
  }
  m.absmax.reset();
}

void quantize_4bit(QuantizedMatrix& m, const at::Tensor& flat, const std::string& name) {
  const int64_t count = flat.numel();
  const int64_t blocks = blocks_of(m);
  m.codes = at::empty({(count + 1) / 2, 1}, at::kByte);
  m.absmax = at::empty({blocks}, at::kFloat);
  auto* codes = m.codes.mutable_data_ptr<uint8_t>();
  auto* absmax = m.absmax.mutable_data_ptr<float>();
  std::atomic<bool> finite = true;
  at::parallel_for(0, blocks, kChunkBlocks, [&](int64_t first, int64_t last) {
    std::array<float, kChunkBlocks * kBlock4> buffer;
    for (int64_t b = first; b < last; b += kChunkBlocks) {
      const int64_t begin = b * kBlock4;
      const int64_t end = std::min(std::min(b + kChunkBlocks, last) * kBlock4, count);
      const float* x = as_float(flat, begin, end - begin, buffer.data());
      if (!cpu::kernels().quantize4(x, end - begin, code_of(m.kind), codes + begin / 2,
                                    absmax + b)) {
        finite = false;
      }
    }
  });
  if (!finite) not_finite(name);
}

// Linear8bitLt's order: to float16, then row by row; 127 / scale is a product with a reciprocal.
bool quantize_row(const float* x, int64_t dim, int8_t* codes, float* scale) {
  float peak = 0;
  bool finite = true;
  for (int64_t i = 0; i < dim; ++i) {
    const float magnitude = std::fabs(x[i]);
    finite = finite && magnitude <= kLargestHalf;
    peak = magnitude > peak ? magnitude : peak;
  }
  *scale = peak;
  if (!finite) return false;
  const float factor = peak == 0 ? 0 : (1.0f / peak) * 127.0f;
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, ties to even
  for (int64_t i = 0; i < dim; ++i) {
    codes[i] = static_cast<int8_t>(static_cast<int32_t>((x[i] * factor + kMagic) - kMagic));
  }
  return true;
}

void quantize_int8(QuantizedMatrix& m, const at::Tensor& weight, const std::string& name) {
  m.codes = at::empty({m.rows, m.columns}, at::kChar);
  m.absmax = at::empty({m.rows}, at::kFloat);
  std::atomic<bool> finite = true;
  at::parallel_for(0, m.rows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const at::Tensor row = weight.select(0, r).to(at::kHalf).to(at::kFloat);
      if (!quantize_row(row.const_data_ptr<float>(), m.columns,
                        m.codes.mutable_data_ptr<int8_t>() + r * m.columns,
                        m.absmax.mutable_data_ptr<float>() + r)) {
        finite = false;
      }
    }
  });
  if (finite) return;
  if (!weight.isfinite().all().item<bool>()) not_finite(name);
  throw UserError(name +
                  ": holds values above 65504, which int8 weights cannot have (they are "
                  "rounded to float16 first): use nf4");
}

// The scales of the blocks first..last.
void scales_of(const QuantizedMatrix& m, int64_t first, int64_t last, float* scales) {
  if (m.absmax.defined()) {
    std::memcpy(scales, m.absmax.const_data_ptr<float>() + first, (last - first) * sizeof(float));
    return;
  }
  const auto& values = dynamic_code(true).values;
  const uint8_t* codes = m.absmax_codes.const_data_ptr<uint8_t>();
  const float* nested = m.nested_absmax.const_data_ptr<float>();
  for (int64_t b = first; b < last; ++b) {
    scales[b - first] = values[codes[b]] * nested[b / kBlock8] + m.offset;
  }
}

template <class T>
void dequantize_elements(const QuantizedMatrix& m, int64_t begin, int64_t end, T* out) {
  const int64_t first = begin / kBlock4;
  const int64_t last = (end + kBlock4 - 1) / kBlock4;
  at::parallel_for(first, last, kChunkBlocks, [&](int64_t from, int64_t to) {
    std::array<float, kChunkBlocks> scales;
    for (int64_t b = from; b < to; b += kChunkBlocks) {
      const int64_t stop = std::min(b + kChunkBlocks, to);
      scales_of(m, b, stop, scales.data());
      const int64_t start = std::max(b * kBlock4, begin);
      cpu::quant_kernels<T>().dequantize4(m.codes.const_data_ptr<uint8_t>(), values_of_4bit(m.kind),
                                          scales.data(), start, std::min(stop * kBlock4, end),
                                          out + (start - begin));
    }
  });
}

template <class T>
void dequantize_int8(const QuantizedMatrix& m, int64_t begin, int64_t end, T* out) {
  for (int64_t r = begin; r < end; ++r) {
    cpu::quant_kernels<T>().dequantize8(m.codes.const_data_ptr<int8_t>() + r * m.columns,
                                        m.absmax.const_data_ptr<float>()[r], out, m.columns);
    out += m.columns;
  }
}

// x as float32 with rows up to a power of two and columns up to whole vectors, filled with zeros.
at::Tensor padded(const at::Tensor& x) {
  constexpr int64_t kLanes = 16;
  const auto rows = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(x.size(0))));
  at::Tensor wide = at::zeros({rows, (x.size(1) + kLanes - 1) / kLanes * kLanes}, at::kFloat);
  wide.narrow(0, 0, x.size(0)).narrow(1, 0, x.size(1)).copy_(x);
  return wide;
}

// Outputs begin..end of the product.
template <class T>
void multiply_rows(const at::Tensor& y, const at::Tensor& x, int64_t rows, const QuantizedMatrix& m,
                   int64_t begin, int64_t end) {
  T* out = output<T>(y) + begin;
  if (m.kind != QuantKind::kInt8 && m.columns % kBlock4 == 0) {
    const int64_t row_blocks = m.columns / kBlock4;
    std::vector<float> scales((end - begin) * row_blocks);
    scales_of(m, begin * row_blocks, end * row_blocks, scales.data());
    cpu::quant_kernels<T>().multiply4(input<float>(x), x.stride(0), rows,
                                      m.codes.const_data_ptr<uint8_t>() + begin * m.columns / 2,
                                      values_of_4bit(m.kind), scales.data(), m.columns, end - begin,
                                      out, y.stride(0));
    return;
  }
  std::vector<T> weights((end - begin) * m.columns);
  if (m.kind == QuantKind::kInt8) {
    dequantize_int8(m, begin, end, weights.data());
  } else {
    dequantize_elements(m, begin * m.columns, end * m.columns, weights.data());
  }
  cpu::quant_kernels<T>().multiply(input<float>(x), x.stride(0), rows, weights.data(), m.columns,
                                   end - begin, out, y.stride(0));
}

cuda::QuantizedView view_of(const QuantizedMatrix& m) {
  cuda::QuantizedView view{.codes = static_cast<const uint8_t*>(m.codes.const_data_ptr()),
                           .offset = m.offset,
                           .rows = m.rows,
                           .columns = m.columns};
  if (m.kind != QuantKind::kInt8) view.values = table_on(m.codes.device(), std::span(values_of_4bit(m.kind), 16));
  if (m.absmax.defined()) {
    view.absmax = input<float>(m.absmax);
  } else {
    view.absmax_codes = input<uint8_t>(m.absmax_codes);
    view.nested_absmax = input<float>(m.nested_absmax);
    view.dynamic_values =
        table_on(m.codes.device(), std::span<const float>(dynamic_code(true).values));
  }
  return view;
}

}  // namespace

int64_t QuantizedMatrix::bytes() const {
  int64_t total = 0;
  for (const at::Tensor* part : {&codes, &absmax, &absmax_codes, &nested_absmax}) {
    if (part->defined()) total += static_cast<int64_t>(part->nbytes());
  }
  return total;
}

const float* values_of_4bit(QuantKind kind) { return code_of(kind).values; }

QuantizedMatrix quantize(const at::Tensor& weight, QuantKind kind, bool double_quant,
                         const std::string& name) {
  TEMPER_CHECK(weight.is_cpu() && weight.dim() == 2 && weight.numel() > 0,
               name + ": only matrices on the CPU are quantised");
  TEMPER_CHECK(weight.scalar_type() == at::kFloat || weight.scalar_type() == at::kBFloat16 ||
                   weight.scalar_type() == at::kHalf,
               name + ": only float32, bfloat16 and float16 are quantised");
  const at::Tensor values = weight.detach().contiguous();
  QuantizedMatrix m;
  m.kind = kind;
  m.rows = weight.size(0);
  m.columns = weight.size(1);
  m.stored = weight.scalar_type();
  if (kind == QuantKind::kInt8) {
    TEMPER_CHECK(!double_quant, name + ": double quantisation is for 4 bits");
    quantize_int8(m, values, name);
  } else {
    quantize_4bit(m, values.view(-1), name);
    if (double_quant) quantize_scales(m, name);
  }
  return m;
}

void dequantize_rows(const QuantizedMatrix& m, int64_t begin, int64_t end, at::Tensor out) {
  TEMPER_CHECK(0 <= begin && begin <= end && end <= m.rows && out.is_contiguous() &&
                   out.numel() == (end - begin) * m.columns,
               "dequantised rows must fit what they are written to");
  if (const cuda::Kernels* device = kernels_for(m.codes)) {
    launch(out, device->dequantize, view_of(m), begin * m.columns, end * m.columns,
           element_of(out), out.mutable_data_ptr());
    return;
  }
  with_kernel_type(out.scalar_type(), [&](auto type) {
    using T = decltype(type);
    if (m.kind != QuantKind::kInt8) {
      dequantize_elements(m, begin * m.columns, end * m.columns, output<T>(out));
      return;
    }
    at::parallel_for(begin, end, kRowsAtOnce, [&](int64_t from, int64_t to) {
      dequantize_int8(m, from, to, output<T>(out) + (from - begin) * m.columns);
    });
  });
}

at::Tensor dequantize(const QuantizedMatrix& m, at::ScalarType dtype) {
  at::Tensor out = at::empty({m.rows, m.columns}, m.codes.options().dtype(dtype));
  dequantize_rows(m, 0, m.rows, out);
  return out;
}

void multiply_quantized(at::Tensor y, const at::Tensor& x, const QuantizedMatrix& m) {
  TEMPER_CHECK(x.dim() == 2 && x.size(0) >= 1 && x.size(0) <= 16 && x.size(1) == m.columns,
               "multiply_quantized takes 1 to 16 rows");
  TEMPER_CHECK(y.sizes() == at::IntArrayRef({x.size(0), m.rows}) && y.stride(1) == 1 &&
                   y.scalar_type() == x.scalar_type(),
               "the product has a row for each of x, in its type");
  if (const cuda::Kernels* device = kernels_for(m.codes)) {
    launch(x, device->multiply, view_of(m), element_of(x), x.const_data_ptr(), x.stride(0),
           x.size(0), y.mutable_data_ptr(), y.stride(0));
    return;
  }
  const at::Tensor wide = padded(x);
  with_kernel_type(x.scalar_type(), [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, m.rows, kRowsAtOnce, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; n += kRowsAtOnce) {
        multiply_rows<T>(y, wide, x.size(0), m, n, std::min(n + kRowsAtOnce, end));
      }
    });
  });
}

}  // namespace temper::trainer
