// Recorded work of the emulated device: done again on other values, and refused where a device
// could not do it by itself.
#include <string>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "recipes/diagnostic.h"
#include "tests/gpu/emulator/recording.h"
#include "trainer/ops/device.h"
#include "trainer/ops/device_graph.h"
#include "trainer/ops/gemm.h"
#include "trainer/ops/rms_norm.h"

extern "C" const temper::parallel::CudaPlugin* temper_cuda_plugin();
extern "C" const temper::trainer::cuda::Kernels* temper_cuda_kernels();

namespace temper::trainer {
namespace {

const at::Device kDevice(at::kPrivateUse1, 0);

class Graph : public testing::Test {
 protected:
  void SetUp() override {
    use_kernels(at::kPrivateUse1, temper_cuda_kernels());
    use_graphs(at::kPrivateUse1, temper_cuda_plugin()->record);
  }
  void TearDown() override { use_graphs(at::kPrivateUse1, nullptr); }

  static at::Tensor drawn(at::IntArrayRef sizes) {
    return at::empty(sizes, at::kFloat).normal_(0, 1, generator());
  }
  static at::Generator& generator() {
    static at::Generator generator = at::detail::createCPUGenerator(5);
    return generator;
  }

  static std::string refusal(const std::function<void()>& work) {
    try {
      record(kDevice, "it", work);
    } catch (const RunError& error) {
      return error.what();
    }
    return "";
  }
};

// An operator that makes its result, one in place, a copy that converts, a product and our kernel.
at::Tensor compute(const at::Tensor& x, const at::Tensor& weight) {
  at::Tensor product = at::empty({x.size(0), weight.size(0)}, x.options());
  gemm(product, at::add(x, 1).mul_(0.5), weight.t());
  return rms_norm_again(product, weight.select(1, 0).contiguous(), 1e-5).to(at::kBFloat16);
}

TEST_F(Graph, IsDoneAgainOnWhatItsTensorsHold) {
  const at::Tensor weight = drawn({8, 6}), first = drawn({3, 6}), next = drawn({3, 6});
  const at::Tensor x = first.to(kDevice), there = weight.to(kDevice);
  at::Tensor y;
  const auto work = [&] { y = compute(x, there); };
  work();
  const at::Tensor expected = y.cpu();
  const auto graph = record(kDevice, "it", work);
  EXPECT_TRUE(y.cpu().isnan().all().item<bool>()) << "nothing is done while it is recorded";
  const int64_t before = emulator::replays();
  graph->replay();
  EXPECT_TRUE(at::equal(y.cpu(), expected));
  x.copy_(next);
  const at::Tensor between = at::full({1000}, 7, x.options());  // takes nothing that is the graph's
  graph->replay();
  EXPECT_EQ(emulator::replays(), before + 2);
  EXPECT_TRUE(at::equal(y.cpu(), compute(next.to(kDevice), there).cpu()));
  EXPECT_TRUE(between.cpu().eq(7).all().item<bool>());
}

// What a kernel takes by value stays as it was: the mistake that a test of recorded work is to
// find.
TEST_F(Graph, KnowsOfTheHostWhatItWasWhenItWasRecorded) {
  const at::Tensor x = at::ones({4}).to(kDevice);
  double number = 2;
  at::Tensor scalar = at::scalar_tensor(3.0), y;
  const auto graph = record(kDevice, "it", [&] { y = x.mul(number).add_(scalar); });
  number = 100;
  scalar.fill_(100);
  graph->replay();
  EXPECT_EQ(y.cpu()[0].item<float>(), 5);
}

TEST_F(Graph, AddsUpGradientsOncePerReplay) {
  const at::Tensor x = drawn({5, 6}).to(kDevice);
  at::Tensor weight = drawn({6, 6}).to(kDevice).requires_grad_(true);
  const auto work = [&] { at::relu(at::mm(x, weight)).sum().backward(); };
  work();
  const at::Tensor once = weight.grad().cpu();
  const auto graph = record(kDevice, "it", work);
  EXPECT_TRUE(at::equal(weight.grad().cpu(), once)) << "nothing is done while it is recorded";
  graph->replay();
  graph->replay();
  EXPECT_TRUE(at::allclose(weight.grad().cpu(), 3 * once));
}

TEST_F(Graph, RefusesWhatWaitsForTheDeviceOrAsksTheHost) {
  const at::Tensor x = at::ones({4}).to(kDevice), host = at::ones({4}), pinned = host.pin_memory();
  EXPECT_EQ(refusal([&] { x.sum().item<float>(); }),
            "it cannot be recorded as a CUDA graph: aten::_local_scalar_dense cannot be recorded; "
            "TEMPER_CUDA_GRAPHS=0 does without");
  EXPECT_NE(refusal([&] { x.nonzero(); }), "");
  EXPECT_NE(refusal([&] { x.cpu(); }), "");
  EXPECT_NE(refusal([&] { x.copy_(host); }), "");
  EXPECT_NE(refusal([&] { x.copy_(pinned, /*non_blocking=*/true); }), "");
  EXPECT_EQ(refusal([&] { x.add_(1); }), "");
  EXPECT_EQ(x.cpu()[0].item<float>(), 1);
}

TEST_F(Graph, IsTurnedOffByAVariableAndAbsentOnTheCpu) {
  EXPECT_TRUE(can_record(kDevice));
  EXPECT_FALSE(can_record(at::kCPU));
  setenv("TEMPER_CUDA_GRAPHS", "0", 1);
  EXPECT_FALSE(can_record(kDevice));
  unsetenv("TEMPER_CUDA_GRAPHS");
}

}  // namespace
}  // namespace temper::trainer
