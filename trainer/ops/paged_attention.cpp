#include "trainer/ops/paged_attention.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "trainer/ops/device.h"
#include "trainer/ops/dispatch.h"

namespace temper::trainer {
namespace {

static_assert(kPageTokens == cuda::kTokensAPage);

cuda::PagedView view_of(const at::Tensor& qkv, const at::Tensor& table, const PageShape& shape,
                        int64_t layer) {
  const int64_t tokens = qkv.size(0);
  TEMPER_CHECK(
      table.is_contiguous() && table.device() == qkv.device() && table.numel() >= 2 * tokens,
      "a row of the page table for each of qkv");
  const int64_t* numbers = input<int64_t>(table);
  return {.qkv = qkv.const_data_ptr(),
          .stride = qkv.size(1),
          .tokens = tokens,
          .kv_heads = shape.kv_heads,
          .dim = shape.head_dim,
          .pages = reinterpret_cast<char* const*>(numbers + 2 * tokens),
          .first_page = numbers + tokens,
          .positions = numbers,
          .offset = layer * shape.layer_bytes(),
          .head_bytes = shape.head_bytes()};
}

}  // namespace

at::Tensor page_table(std::span<const PagedRun> runs, at::Device device) {
  std::vector<int64_t> positions, first_pages, pages;
  for (const PagedRun& run : runs) {
    TEMPER_CHECK(run.position + run.tokens <= std::ssize(run.pages) * kPageTokens,
                 "a sequence has too few pages for its new tokens");
    for (int64_t i = 0; i < run.tokens; ++i) {
      positions.push_back(run.position + i);
      first_pages.push_back(std::ssize(pages));
    }
    for (char* page : run.pages) pages.push_back(reinterpret_cast<int64_t>(page));
  }
  positions.insert(positions.end(), first_pages.begin(), first_pages.end());
  positions.insert(positions.end(), pages.begin(), pages.end());
  return sent_to(device, at::tensor(positions, at::kLong));
}

void store_in_pages(const at::Tensor& qkv, const at::Tensor& table, const PageShape& shape,
                    int64_t layer) {
  const int64_t dim = shape.head_dim, stride = qkv.size(1), kv = shape.kv_heads * dim;
  TEMPER_CHECK(qkv.is_contiguous() && qkv.scalar_type() == shape.dtype,
               "pages take a contiguous qkv of their own type");
  const cuda::PagedView view = view_of(qkv, table, shape, layer);
  if (const cuda::Kernels* device = kernels_for(qkv)) {
    launch(qkv, device->store_in_pages, element_of(qkv), view);
    return;
  }
  with_kernel_type(shape.dtype, [&](auto type) {
    using T = decltype(type);
    at::parallel_for(0, qkv.size(0), 16, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t position = view.positions[t], slot = position % kPageTokens;
        const T* keys = input<T>(qkv) + (t + 1) * stride - 2 * kv;
        char* page = view.pages[view.first_page[t] + position / kPageTokens] + view.offset;
        for (int64_t h = 0; h < shape.kv_heads; ++h) {
          T* out = reinterpret_cast<T*>(page + h * shape.head_bytes());
          const T* key = keys + h * dim;
          for (int64_t d = 0; d < dim; ++d) out[d * kPageTokens + slot] = key[d];
          std::copy_n(key + kv, dim, out + (kPageTokens + slot) * dim);
        }
      }
    });
  });
}

at::Tensor attention_in_pages(const at::Tensor& qkv, const at::Tensor& table,
                              const PageShape& shape, int64_t layer, const AttentionHeads& heads) {
  const int64_t dim = heads.head_dim, group = heads.heads / heads.kv_heads;
  at::Tensor out = at::empty({qkv.size(0), heads.heads * dim}, qkv.options());
  cuda::PagedView view = view_of(qkv, table, shape, layer);
  view.heads = heads.heads;
  view.window = heads.window;
  view.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  view.out = out.mutable_data_ptr();
  if (const cuda::Kernels* device = kernels_for(qkv)) {
    TEMPER_CHECK(dim <= cuda::kLargestHead, "heads of at most 256 features on a device");
    launch(qkv, device->attention_in_pages, element_of(qkv), view);
    return out;
  }
  const int64_t tasks = qkv.size(0) * heads.kv_heads;
  with_kernel_type(shape.dtype, [&](auto type) {
    using T = decltype(type);
    // Sequences are of different lengths: threads take the next task when they are done with one.
    std::atomic<int64_t> next = 0;
    const int64_t threads = std::min<int64_t>(tasks, at::get_num_threads());
    at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
      std::vector<float> scratch(8 * dim + 512);
      for (int64_t i = next++; i < tasks; i = next++) {
        const int64_t t = i / heads.kv_heads, head = i % heads.kv_heads;
        const int64_t length = view.positions[t] + 1;
        const int64_t first = heads.window > 0 ? std::max<int64_t>(0, length - heads.window) : 0;
        cpu::paged_kernels<T>().attend(
            input<T>(qkv) + t * qkv.size(1) + head * group * dim, group, dim, view.scale,
            view.pages + view.first_page[t], view.offset + head * shape.head_bytes(), first, length,
            output<T>(out) + t * out.size(1) + head * group * dim, scratch.data());
      }
    });
  });
  return out;
}

}  // namespace temper::trainer
