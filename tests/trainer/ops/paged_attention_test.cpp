#include "trainer/ops/paged_attention.h"

#include <algorithm>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

namespace temper::trainer {
namespace {

struct Case {
  AttentionHeads heads;
  at::ScalarType dtype;
};

class PagedAttentionCases : public testing::TestWithParam<Case> {};

// A document's qkv in pages, three layers of which only the middle one is used.
struct Pages {
  Pages(const AttentionHeads& heads, at::ScalarType dtype, int64_t tokens)
      : shape{.layers = 3, .kv_heads = heads.kv_heads, .head_dim = heads.head_dim, .dtype = dtype},
        memory(at::empty({(tokens + kPageTokens - 1) / kPageTokens, shape.bytes()}, at::kByte)) {
    // What no token has written must not matter: NaN in either type.
    memory.fill_(0xff);
    for (int64_t p = memory.size(0); p-- > 0;)
      addresses.push_back(static_cast<char*>(memory[p].data_ptr()));
  }
  PageShape shape;
  at::Tensor memory;
  std::vector<char*> addresses;
};

// Documents of every length around a page and a block of keys, each in a batch of its own kind.
TEST_P(PagedAttentionCases, GivesATokenTheBitsThatItHasInItsDocument) {
  const auto& [heads, dtype] = GetParam();
  at::manual_seed(3);
  constexpr int64_t kLength = 420;
  const int64_t width = (heads.heads + 2 * heads.kv_heads) * heads.head_dim;
  const at::Tensor qkv = at::randn({kLength, width}).to(dtype);
  const at::Tensor whole =
      attention(qkv, {.ends = at::tensor({int64_t{0}, kLength}, at::kInt)}, heads);
  Pages pages(heads, dtype, kLength);
  int64_t compared = 0;
  for (int64_t position = 0; position < kLength;) {
    const int64_t tokens =
        position == 0 ? 5 : std::min<int64_t>(1 + position % 7, kLength - position);
    const PagedRun run{.pages = pages.addresses, .position = position, .tokens = tokens};
    const at::Tensor next = qkv.narrow(0, position, tokens).contiguous();
    const at::Tensor table = page_table({&run, 1});
    store_in_pages(next, table, pages.shape, 1);
    const at::Tensor found = attention_in_pages(next, table, pages.shape, 1, heads);
    ASSERT_TRUE(at::equal(found, whole.narrow(0, position, tokens))) << "position " << position;
    position += tokens;
    ++compared;
  }
  EXPECT_GT(compared, 50);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, PagedAttentionCases,
    testing::Values(Case{{4, 4, 64, 0}, at::kFloat}, Case{{8, 4, 64, 0}, at::kBFloat16},
                    Case{{8, 2, 64, 0}, at::kFloat}, Case{{7, 1, 8, 0}, at::kFloat},
                    Case{{6, 2, 20, 0}, at::kBFloat16}, Case{{2, 1, 128, 0}, at::kFloat},
                    Case{{4, 2, 80, 0}, at::kFloat}, Case{{4, 2, 16, 7}, at::kFloat},
                    Case{{4, 2, 16, 200}, at::kBFloat16}, Case{{4, 2, 16, 200}, at::kHalf}),
    [](const auto& kind) {
      const AttentionHeads& h = kind.param.heads;
      return std::to_string(h.heads) + "Heads" + std::to_string(h.kv_heads) + "Of" +
             std::to_string(h.head_dim) +
             (h.window > 0 ? "Window" + std::to_string(h.window) : "") +
             (kind.param.dtype == at::kFloat  ? "Fp32"
              : kind.param.dtype == at::kHalf ? "Fp16"
                                              : "Bf16");
    });

TEST(PagedAttention, SequencesOfOneCallDoNotSeeEachOther) {
  const AttentionHeads heads{4, 2, 16, 0};
  at::manual_seed(4);
  const at::Tensor one = at::randn({50, 128}), other = at::randn({33, 128});
  Pages pages_of_one(heads, at::kFloat, 50), pages_of_other(heads, at::kFloat, 33);
  const auto fill = [&](Pages& pages, const at::Tensor& qkv) {
    const PagedRun run{.pages = pages.addresses, .position = 0, .tokens = qkv.size(0) - 1};
    store_in_pages(qkv.narrow(0, 0, qkv.size(0) - 1), page_table({&run, 1}), pages.shape, 0);
    return PagedRun{.pages = pages.addresses, .position = qkv.size(0) - 1, .tokens = 1};
  };
  const PagedRun runs[] = {fill(pages_of_one, one), fill(pages_of_other, other)};
  const at::Tensor last = at::cat({one.narrow(0, 49, 1), other.narrow(0, 32, 1)});
  const at::Tensor table = page_table(runs);
  store_in_pages(last, table, pages_of_one.shape, 0);
  const at::Tensor found = attention_in_pages(last, table, pages_of_one.shape, 0, heads);
  const at::Tensor expected =
      attention(at::cat({one, other}), {.ends = at::tensor({0, 50, 83}, at::kInt)}, heads)
          .index_select(0, at::tensor({49, 82}, at::kLong));
  EXPECT_TRUE(at::equal(found, expected));
}

}  // namespace
}  // namespace temper::trainer
