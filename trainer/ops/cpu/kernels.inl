// The kernels of kernels.h in namespace TEMPER_ISA. Included by one small .cpp for each instruction
// set; includes nothing that could leave inline functions of the wrong instruction set to the
// linker.
#include <cmath>
#include <cstdint>

#ifdef __F16C__
#include <immintrin.h>
#endif

#include "trainer/ops/blockwise.h"
#include "trainer/ops/cpu/kernels.h"

namespace temper::trainer::cpu {
extern const Kernels TEMPER_ISA_KERNELS;
namespace TEMPER_ISA {
namespace {

// In this order: lanes are what the others are written in.
// clang-format off
#include "trainer/ops/cpu/lanes.inl"
#include "trainer/ops/cpu/copies.inl"
#include "trainer/ops/cpu/product.inl"
#include "trainer/ops/cpu/rows.inl"
#include "trainer/ops/cpu/divergence.inl"
#include "trainer/ops/cpu/attention.inl"
#include "trainer/ops/cpu/paged.inl"
#include "trainer/ops/cpu/quantized.inl"
// clang-format on

template <class T>
constexpr RowKernels<T> rows_of() {
  return {rms_norm<T>, rms_norm_backward<T>, layer_norm<T>, layer_norm_backward<T>, rope<T>,
          swiglu<T>,   swiglu_backward<T>,   gelu<T>,       gelu_backward<T>,
          load<T>,     load_transposed<T>,   store<T>, store_sum<T>,       store_transposed<T>,
          row_dots<T>, column_sums<T>,       add<T>,   softmax_gradient<T>,
          log_prob_gradient<T>, divergence<T>};
}

template <class T>
constexpr QuantKernels<T> quant_of() {
  return {dequantize4<T>, dequantize8<T>, multiply4<T>, multiply<T>};
}

}  // namespace
}  // namespace TEMPER_ISA

const Kernels TEMPER_ISA_KERNELS = {
    TEMPER_ISA_NAME,
    TEMPER_ISA::rows_of<float>(),
    TEMPER_ISA::rows_of<Bf16>(),
    TEMPER_ISA::rows_of<Fp16>(),
    {TEMPER_ISA::pack_rows<float>, TEMPER_ISA::pack_columns<float>,
     TEMPER_ISA::pack_transposed<float>},
    {TEMPER_ISA::pack_rows<Bf16>, TEMPER_ISA::pack_columns<Bf16>,
     TEMPER_ISA::pack_transposed<Bf16>},
    {TEMPER_ISA::widened_rows, TEMPER_ISA::widened_columns, TEMPER_ISA::widened_transposed},
    {TEMPER_ISA::softmax, TEMPER_ISA::scale_columns, TEMPER_ISA::softmax_backward},
    TEMPER_ISA::quant_of<float>(),
    TEMPER_ISA::quant_of<Bf16>(),
    TEMPER_ISA::quant_of<Fp16>(),
    TEMPER_ISA::quantize4,
    TEMPER_ISA::quantize8,
    TEMPER_ISA::softmax_row,
    TEMPER_ISA::exp_row,
    {TEMPER_ISA::attend_pages<float>},
    {TEMPER_ISA::attend_pages<Bf16>},
    {TEMPER_ISA::attend_pages<Fp16>},
    TEMPER_ISA::gemm,
};

}  // namespace temper::trainer::cpu
