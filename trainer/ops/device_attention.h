#pragma once

#include "trainer/ops/attention.h"

namespace temper::trainer {

/// attention() for qkv on a device: LibTorch's flash kernel for variable lengths (Dao 2023,
/// arXiv:2307.08691) where it takes the shape (bfloat16 or float16, heads of 8 to 256 in steps of
/// 8), else our own (cuda/attention.cu). Same result up to the rounding of the flash kernel's
/// products. For that kernel the keys and values of a shared prefix are copied in front of those of
/// each document behind it, for as long as it runs.
at::Tensor device_attention(const at::Tensor& qkv, const DocumentLayout& documents,
                            const AttentionHeads& heads);

}  // namespace temper::trainer
