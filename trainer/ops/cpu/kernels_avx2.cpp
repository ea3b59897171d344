#define TEMPER_ISA avx2
#define TEMPER_ISA_KERNELS kernels_avx2
#define TEMPER_ISA_NAME "avx2"
#include "trainer/ops/cpu/kernels.inl"
