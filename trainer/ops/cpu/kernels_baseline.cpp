#define TEMPER_ISA baseline
#define TEMPER_ISA_KERNELS kernels_baseline
#define TEMPER_ISA_NAME "baseline"
#include "trainer/ops/cpu/kernels.inl"
