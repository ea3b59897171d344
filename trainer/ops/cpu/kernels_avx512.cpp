#define TEMPER_ISA avx512
#define TEMPER_ISA_KERNELS kernels_avx512
#define TEMPER_ISA_NAME "avx512"
#include "trainer/ops/cpu/kernels.inl"
