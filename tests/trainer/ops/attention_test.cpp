#include "trainer/ops/attention.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/trainer/ops/compare.h"

namespace temper::trainer {
namespace {

// The whole score matrix of each document, masked.
at::Tensor slow_attention(const at::Tensor& qkv, const std::vector<int64_t>& ends,
                          const AttentionHeads& h) {
  std::vector<at::Tensor> documents;
  for (size_t d = 0; d + 1 < ends.size(); ++d) {
    const int64_t length = ends[d + 1] - ends[d];
    const at::Tensor heads =
        qkv.narrow(0, ends[d], length).view({length, -1, h.head_dim}).transpose(0, 1);
    const at::Tensor q = heads.narrow(0, 0, h.heads);
    const at::Tensor k =
        heads.narrow(0, h.heads, h.kv_heads).repeat_interleave(h.heads / h.kv_heads, 0);
    const at::Tensor v = heads.narrow(0, h.heads + h.kv_heads, h.kv_heads)
                             .repeat_interleave(h.heads / h.kv_heads, 0);
    at::Tensor seen = at::ones({length, length}, at::kBool).tril();
    if (h.window > 0)
      seen = seen.logical_and(at::ones({length, length}, at::kBool).triu(1 - h.window));
    const at::Tensor scores =
        at::matmul(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(h.head_dim));
    const at::Tensor p = at::softmax(scores.masked_fill(seen.logical_not(), -INFINITY), -1);
    documents.push_back(at::matmul(p, v).transpose(0, 1).reshape({length, h.heads * h.head_dim}));
  }
  return at::cat(documents);
}

struct Case {
  std::string name;
  AttentionHeads heads;
  std::vector<int64_t> ends;
  at::ScalarType dtype = at::kFloat;
};

class AttentionCases : public testing::TestWithParam<Case> {};

TEST_P(AttentionCases, ValuesAndGradientsEqualTheMaskedScoreMatrix) {
  at::manual_seed(4);
  const Case& c = GetParam();
  const at::Tensor qkv = leaf(
      at::randn({c.ends.back(), (c.heads.heads + 2 * c.heads.kv_heads) * c.heads.head_dim}) * 1.5,
      c.dtype);
  const at::Tensor ends = at::tensor(c.ends, at::kInt);
  const at::Tensor slow = exact(qkv);
  const at::Tensor out = attention(qkv, {.ends = ends}, c.heads),
                   slow_out = slow_attention(slow, c.ends, c.heads);
  EXPECT_LT(worst(out, slow_out), tolerance(c.dtype));
  const at::Tensor dout = at::randn(out.sizes()).to(c.dtype);
  out.backward(dout);
  slow_out.backward(dout.to(at::kDouble));
  EXPECT_LT(worst(qkv.grad(), slow.grad()), c.dtype == at::kFloat ? 1e-5 : 2e-2);
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionCases,
    testing::Values(Case{"OneToken", {2, 1, 8, 0}, {0, 1}},
                    Case{"ManyShortDocuments", {4, 2, 8, 0}, {0, 1, 3, 20, 36, 37, 70}},
                    Case{"SeveralBlocks", {2, 2, 64, 0}, {0, 300, 555}},
                    Case{"LongerThanATask", {2, 1, 16, 0}, {0, 1100}},
                    Case{"WideGroups", {8, 1, 20, 0}, {0, 150, 151}},
                    Case{"Window", {4, 2, 16, 7}, {0, 5, 90}},
                    Case{"WindowAcrossBlocksAndTasks", {2, 1, 16, 200}, {0, 700}},
                    Case{"Bfloat16", {4, 2, 32, 0}, {0, 33, 200}, at::kBFloat16},
                    Case{"Float16", {4, 2, 32, 0}, {0, 33, 200}, at::kHalf}),
    [](const auto& parameter) { return parameter.param.name; });

TEST(Attention, GivesTheSameBitsForADocumentAloneAndPackedAndOnAnyNumberOfThreads) {
  at::manual_seed(5);
  const AttentionHeads heads{4, 2, 16, 0};
  const at::Tensor qkv = at::randn({900, 8 * 16});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = attention(qkv, {.ends = at::tensor({0, 40, 640, 900}, at::kInt)}, heads);
  at::set_num_threads(2);
  const at::Tensor two = attention(qkv, {.ends = at::tensor({0, 40, 640, 900}, at::kInt)}, heads);
  const at::Tensor alone =
      attention(qkv.narrow(0, 40, 600).contiguous(), {.ends = at::tensor({0, 600}, at::kInt)}, heads);
  at::set_num_threads(threads);
  EXPECT_TRUE(one.equal(two));
  EXPECT_TRUE(alone.equal(one.narrow(0, 40, 600)));
}

// A prompt, two completions of it, a document by itself, and a third completion of the prompt's.
TEST(Attention, ACompletionSeesItsPromptAsIfItStoodBeforeItToTheBit) {
  at::manual_seed(8);
  for (const AttentionHeads& heads : {AttentionHeads{4, 2, 16, 0}, AttentionHeads{2, 1, 16, 90}}) {
    const int64_t width = (heads.heads + 2 * heads.kv_heads) * heads.head_dim;
    const at::Tensor tree = leaf(at::randn({800, width}), at::kFloat);
    const DocumentLayout layout{at::tensor({0, 200, 330, 331, 500, 800}, at::kInt),
                                at::tensor({-1, 0, 0, -1, 0}, at::kInt)};
    const at::Tensor flat = leaf(tree.detach().clone(), at::kFloat);
    const auto part = [&](int64_t begin, int64_t end) { return flat.narrow(0, begin, end - begin); };
    const at::Tensor prompt = part(0, 200);
    const at::Tensor copies = at::cat({prompt, part(200, 330), prompt, part(330, 331),
                                       part(331, 500), prompt, part(500, 800)});
    const DocumentLayout copied{at::tensor({0, 330, 531, 700, 1200}, at::kInt)};
    const at::Tensor shared = attention(tree, layout, heads);
    const at::Tensor whole = attention(copies, copied, heads);
    const at::Tensor same = at::cat({whole.narrow(0, 0, 330), whole.narrow(0, 530, 1),
                                     whole.narrow(0, 531, 169), whole.narrow(0, 900, 300)});
    EXPECT_TRUE(at::equal(shared, same));
    // What the copies of the prompt get adds up in what the shared one gets.
    const at::Tensor dout = at::randn(shared.sizes());
    shared.backward(dout);
    same.backward(dout);
    EXPECT_LT(worst(tree.grad(), flat.grad().to(at::kDouble)), 1e-5);
  }
}

}  // namespace
}  // namespace temper::trainer
