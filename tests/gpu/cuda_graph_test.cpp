// Recorded work on a GPU: what graph_test.cpp finds on the emulated device holds there too.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/gpu/device.h"
#include "trainer/ops/device_graph.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/rms_norm.h"

namespace temper::trainer {
namespace {

at::Tensor compute(const at::Tensor& x, const at::Tensor& weight) {
  at::Tensor product = at::empty({x.size(0), weight.size(0)}, x.options());
  gemm(product, at::add(x, 1).mul_(0.5), weight.t());
  return rms_norm_again(product, weight.select(1, 0).contiguous(), 1e-5);
}

TEST(CudaGraph, IsDoneAgainOnWhatItsTensorsHold) {
  TEMPER_NEEDS_DEVICE();
  const auto options = at::TensorOptions(test_device()).dtype(at::kBFloat16);
  const at::Tensor weight = at::randn({256, 128}, options), next = at::randn({8, 128}, options);
  for (int round = 0; round < 2;
       ++round) {  // the second after the memory of the first was given back
    const at::Tensor x = at::randn({8, 128}, options);
    at::Tensor y, wide;
    const auto work = [&] { y = compute(x, weight); };
    work();
    const at::Tensor first = y.clone();
    const auto graph = record(test_device(), "it", work);
    const auto other = record(
        test_device(), "it", [&] { wide = compute(x, weight).to(at::kFloat); }, graph.get());
    for (int again = 0; again < 3; ++again) {
      graph->replay();
      other->replay();
      const at::Tensor expected = again == 0 ? first : compute(next, weight);
      EXPECT_TRUE(at::equal(y, expected));
      EXPECT_TRUE(at::equal(wide, expected.to(at::kFloat)));
      x.copy_(next);
    }
  }
}

TEST(CudaGraph, RecordsBackwardFromItsThreads) {
  TEMPER_NEEDS_DEVICE();
  const auto options = at::TensorOptions(test_device());
  const at::Tensor x = at::randn({64, 32}, options);
  at::Tensor weight = at::randn({32, 32}, options), gradient;
  const auto work = [&] {
    const at::Tensor leaf = weight.detach().requires_grad_(true);
    at::relu(at::mm(x, leaf)).sum().backward();
    gradient = leaf.grad();
  };
  work();
  const at::Tensor expected = gradient.clone();
  const auto graph = record(test_device(), "it", work);
  graph->replay();
  EXPECT_TRUE(at::allclose(gradient, expected));
}

}  // namespace
}  // namespace temper::trainer
