#pragma once

#include <cstdint>
#include <span>

#include <ATen/core/Tensor.h>

#include "trainer/ops/attention.h"

/// Attention of new tokens over a cache of keys and values in pages (Kwon et al. 2023,
/// arXiv:2309.06180). A page holds 16 consecutive tokens of a sequence in all layers: for each
/// layer and key/value head the keys [E, 16], then the values [16, E], rotary embedding applied. No
/// gradients.
namespace temper::trainer {

inline constexpr int64_t kPageTokens = 16;

struct PageShape {
  int64_t layers = 0, kv_heads = 0, head_dim = 0;
  at::ScalarType dtype = at::kFloat;  // that of qkv
  at::Device device = at::kCPU;       // that of the pages
  int64_t head_bytes() const {
    return 2 * kPageTokens * head_dim * static_cast<int64_t>(c10::elementSize(dtype));
  }
  int64_t layer_bytes() const { return kv_heads * head_bytes(); }
  int64_t bytes() const { return layers * layer_bytes(); }
};

/// New tokens of one sequence: the next `tokens` rows of qkv, at positions from `position` on.
struct PagedRun {
  std::span<char* const> pages;  // the sequence's, in order; enough for the new tokens too
  int64_t position = 0;
  int64_t tokens = 0;
};

/// Where the runs' tokens and pages are, a row of qkv each: [N] positions, [N] where each token's
/// pages begin in the list of all pages, and that list (which may be longer than what is used),
/// int64. One for all layers of a forward pass.
at::Tensor page_table(std::span<const PagedRun> runs, at::Device device = at::kCPU);

/// Writes keys and values of qkv [N, (H + 2 K) E] into `layer` of the pages. `table`: page_table(),
/// where qkv is.
void store_in_pages(const at::Tensor& qkv, const at::Tensor& table, const PageShape& shape,
                    int64_t layer);

/// [N, H E], from what `layer` of the pages holds, the new tokens included: what attention() gives
/// for the last tokens of the whole sequence, on the CPU to the bit.
at::Tensor attention_in_pages(const at::Tensor& qkv, const at::Tensor& table,
                              const PageShape& shape, int64_t layer, const AttentionHeads& heads);

}  // namespace temper::trainer
