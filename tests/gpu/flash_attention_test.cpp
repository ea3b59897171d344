// How LibTorch's flash attention is called on a device: what is asked of it, by what stands in for it
// on the emulated one, against the CPU's attention.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/gpu/emulator/waits.h"
#include "tests/trainer/ops/compare.h"
#include "trainer/ops/attention.h"
#include "trainer/ops/device.h"

extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels();

namespace temper::trainer {
namespace {

struct Shape {
  AttentionHeads heads;
  std::vector<int32_t> ends, prefixes;
};

// The result and the gradient.
std::pair<at::Tensor, at::Tensor> attended(const Shape& shape, const at::Tensor& qkv,
                                           const at::Tensor& dout, at::Device device) {
  const DocumentLayout layout{
      at::tensor(shape.ends, at::kInt),
      shape.prefixes.empty() ? at::Tensor() : at::tensor(shape.prefixes, at::kInt)};
  const at::Tensor leaf = qkv.to(device, qkv.scalar_type(), false, true).requires_grad_(true);
  const at::Tensor there = dout.to(device);
  const int64_t before = emulator::waits();
  const at::Tensor out = attention(leaf * 1, layout, shape.heads);
  out.backward(there);
  EXPECT_EQ(emulator::waits(), before);
  return {out.detach().cpu(), leaf.grad().cpu()};
}

TEST(DeviceAttention, FlashSeesWhatADocumentAndItsPrefixHave) {
  use_kernels(at::kPrivateUse1, temper_cuda_kernels());
  const std::vector<Shape> shapes = {
      {{4, 2, 16, 0}, {0, 1, 35, 50}, {}},
      {{6, 2, 8, 5}, {0, 37, 37, 44}, {}},
      {{4, 2, 16, 0}, {0, 27, 36, 42, 45}, {-1, 0, 0, -1}},
      {{4, 4, 16, 0}, {0, 5, 27, 36, 36, 42, 45}, {-1, -1, 1, 1, 1, 0}},
      {{4, 1, 16, 9}, {0, 12, 37, 40, 50}, {-1, 0, -1, 0}},
  };
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    for (size_t i = 0; i < shapes.size(); ++i) {
      const AttentionHeads& heads = shapes[i].heads;
      const int64_t tokens = shapes[i].ends.back();
      const int64_t width = (heads.heads + 2 * heads.kv_heads) * heads.head_dim;
      const at::Tensor qkv = at::randn({tokens, width}).to(dtype);
      const at::Tensor dout = at::randn({tokens, heads.heads * heads.head_dim}).to(dtype);
      const auto [expected, gradient] = attended(shapes[i], qkv, dout, at::kCPU);
      const auto [found, found_gradient] =
          attended(shapes[i], qkv, dout, at::Device(at::kPrivateUse1, 0));
      EXPECT_LT(worst(found, expected), 4 * tolerance(dtype)) << "shape " << i;
      EXPECT_LT(worst(found_gradient, gradient), 4 * tolerance(dtype)) << "shape " << i;
    }
  }
}

}  // namespace
}  // namespace temper::trainer
