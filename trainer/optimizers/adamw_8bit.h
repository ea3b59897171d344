#pragma once

#include "trainer/optimizers/optimizer.h"

namespace temper::trainer {

/// AdamW with both moments in 8 bits, blocks of 256 (Dettmers et al. 2022, arXiv:2110.02861), as
/// bitsandbytes 0.50.2 steps on the CPU: m and v are widened, updated as in adamw.h, used for the
/// weights before they are rounded, and quantised again (ops/blockwise.h, m with and v without a
/// sign). Tensors below 4096 elements keep float32 moments. State: "exp_avg/NAME" and
/// "exp_avg_sq/NAME", codes with "exp_avg_absmax/NAME" and "exp_avg_sq_absmax/NAME" beside them.
///
/// Codes follow the CPU's rounding, through a table of 65536 steps; CUDA takes the nearest code, so
/// about 0.2% of the codes differ between the two. "paged_adamw_8bit" is the same thing, with the
/// codes of large tensors on pages that may leave the device (paged.h).
std::unique_ptr<Optimizer> build_adamw_8bit(const recipes::Optimizer& optimizer,
                                            const std::vector<Parameter>& parameters);

}  // namespace temper::trainer
